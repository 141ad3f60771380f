// werift as a WHIP peer, N times in a row: prints the number of connections that came up.
const { RTCPeerConnection, MediaStreamTrack, useVP8 } = require('werift')
const [url, times] = [process.argv[2], Number(process.argv[3])]

async function push() {
  const peer = new RTCPeerConnection({ iceServers: [], codecs: { video: [useVP8()] } })
  peer.addTransceiver(new MediaStreamTrack({ kind: 'video' }), { direction: 'sendonly' })
  const ended = new Promise(done => {
    peer.connectionStateChange.subscribe(state => ['connected', 'failed', 'closed'].includes(state) && done(state))
    setTimeout(() => done('timed out'), 15000)
  })
  await peer.setLocalDescription(await peer.createOffer())
  const offer = peer.localDescription.sdp
  const answer = await fetch(url, { method: 'POST', body: offer, headers: { 'Content-Type': 'application/sdp' } })
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`)
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() })
  const state = await ended
  await fetch(new URL(answer.headers.get('location'), url), { method: 'DELETE' })
  await peer.close()
  return state === 'connected'
}

(async () => {
  let connected = 0
  for (let index = 0; index < times; index++) connected += await push()
  console.log(connected)
  process.exit(0)
})()
