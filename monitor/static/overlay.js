// Draws sent units and importance over a picture. `box`: the grid's left, top, right, bottom as shares of the picture.

export const WHOLE = [0, 0, 1, 1];

export function drawUnits(context, { side, units, box }) {
  if (!units.length) return;
  const { cell, left, top, width, height } = grid(context, side, box);
  const sent = new Set(units);
  context.save();
  context.fillStyle = "rgb(8 10 14 / 58%)";
  const { width: all, height: tall } = context.canvas;
  // Nothing outside of the grid was sent: dim it as well.
  context.beginPath();
  context.rect(0, 0, all, tall);
  context.rect(left, top, width, height);
  context.fill("evenodd");
  for (let unit = 0; unit < side * side; unit++) if (!sent.has(unit)) context.fillRect(...cell(unit));
  outlineUnits(context, { side, units, box });
  context.restore();
}

// A line around the sent units.
export function outlineUnits(context, { side, units, box = WHOLE }) {
  const { cell } = grid(context, side, box);
  const sent = new Set(units);
  context.save();
  context.strokeStyle = "#ffd23c";
  context.lineWidth = Math.max(1, context.canvas.width / 320);
  context.beginPath();
  for (const unit of sent) {
    const [x, y, w, h] = cell(unit);
    const line = (x0, y0, x1, y1) => (context.moveTo(x0, y0), context.lineTo(x1, y1));
    if (!sent.has(unit - side)) line(x, y, x + w, y);
    if (!sent.has(unit + side)) line(x, y + h, x + w, y + h);
    if (unit % side === 0 || !sent.has(unit - 1)) line(x, y, x, y + h);
    if (unit % side === side - 1 || !sent.has(unit + 1)) line(x + w, y, x + w, y + h);
  }
  context.stroke();
  context.restore();
}

export function drawHeat(context, { side, importance, box }) {
  if (!importance) return;
  const { cell } = grid(context, side, box);
  const values = Uint8Array.from(atob(importance), (c) => c.charCodeAt(0));
  context.save();
  values.forEach((value, unit) => {
    // From transparent violet over red to opaque yellow.
    context.fillStyle = `hsl(${270 + 145 * (value / 255)} 95% 55% / ${(72 * value) / 255}%)`;
    context.fillRect(...cell(unit));
  });
  context.restore();
}

function grid(context, side, box) {
  const { width: all, height: tall } = context.canvas;
  const [left, top] = [box[0] * all, box[1] * tall];
  const [width, height] = [(box[2] - box[0]) * all, (box[3] - box[1]) * tall];
  const edge = (n, start, size) => Math.round(start + (n * size) / side);
  const cell = (unit) => {
    const [row, column] = [Math.floor(unit / side), unit % side];
    const [x, y] = [edge(column, left, width), edge(row, top, height)];
    return [x, y, edge(column + 1, left, width) - x, edge(row + 1, top, height) - y];
  };
  return { cell, left, top, width, height };
}
