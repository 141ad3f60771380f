// A WHIP peer of npm: pushes one coded picture 20 times a second until SIGTERM.
//
//     node push_node.cjs werift|node-datachannel URL PICTURE
//
// node-datachannel is libdatachannel, as in OBS. Both have no encoder: PICTURE is a VP8 key frame as hexadecimal text, of
// at most 1,000 bytes, so that it fits into one RTP packet.
const { setTimeout: sleep } = require('timers/promises')
const [name, url, hex] = process.argv.slice(2)
const PERIOD_MS = 50, CLOCK_HZ = 90000, PAYLOAD_TYPE = 96, SSRC = 7

// Each returns a connection with an offer, and functions: to take the answer, to send a packet, to close.
const PEERS = { 'node-datachannel': libdatachannel, werift }

async function libdatachannel() {
  const { PeerConnection, Video } = require('node-datachannel')
  const peer = new PeerConnection('peer', { iceServers: [], bindAddress: '127.0.0.1' })
  const video = new Video('0', 'SendOnly')
  video.addVP8Codec(PAYLOAD_TYPE)
  video.addSSRC(SSRC, 'camera')
  const track = peer.addTrack(video)
  const gathered = new Promise(done => peer.onGatheringStateChange(state => state === 'complete' && done()))
  peer.setLocalDescription()
  await gathered
  return {
    offer: peer.localDescription().sdp,
    take: async answer => peer.setRemoteDescription(answer, 'answer'),
    send: packet => track.isOpen() && track.sendMessageBinary(packet),
    close: async () => peer.close()
  }
}

async function werift() {
  const { RTCPeerConnection, MediaStreamTrack, useVP8 } = require('werift')
  const peer = new RTCPeerConnection({ iceServers: [], codecs: { video: [useVP8()] } })
  const track = new MediaStreamTrack({ kind: 'video' })
  peer.addTransceiver(track, { direction: 'sendonly' })
  await peer.setLocalDescription(await peer.createOffer())
  return {
    offer: peer.localDescription.sdp,
    take: answer => peer.setRemoteDescription({ type: 'answer', sdp: answer }),
    send: packet => peer.connectionState === 'connected' && track.writeRtp(packet),
    close: () => peer.close()
  }
}

function packetOf(picture, number) {
  const header = Buffer.alloc(13)
  header[0] = 0x80 // RTP version 2
  header[1] = 0x80 | PAYLOAD_TYPE // the last packet of a picture
  header.writeUInt16BE(number & 0xffff, 2)
  header.writeUInt32BE(number * CLOCK_HZ * PERIOD_MS / 1000, 4)
  header.writeUInt32BE(SSRC, 8)
  header[12] = 0x10 // the first packet of a VP8 picture
  return Buffer.concat([header, picture])
}

(async () => {
  let leaving = false
  process.on('SIGTERM', () => { leaving = true })
  const peer = await PEERS[name](), picture = Buffer.from(hex, 'hex')
  const answer = await fetch(url, {
    method: 'POST', body: peer.offer, headers: { 'Content-Type': 'application/sdp' } })
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`)
  await peer.take(await answer.text())
  for (let number = 0; !leaving; number++) {
    peer.send(packetOf(picture, number))
    await sleep(PERIOD_MS)
  }
  await fetch(new URL(answer.headers.get('location'), url), { method: 'DELETE' })
  await peer.close()
  process.exit(0)
})()
