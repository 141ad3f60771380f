// libdatachannel (of OBS) as a WHIP peer, N times in a row: prints the number of connections that came up.
const { PeerConnection, Video } = require('node-datachannel')
const [url, times] = [process.argv[2], Number(process.argv[3])]

async function push() {
  const peer = new PeerConnection('peer', { iceServers: [], bindAddress: '127.0.0.1' })
  const video = new Video('0', 'SendOnly')
  video.addVP8Codec(96)
  video.addSSRC(7, 'camera')
  peer.addTrack(video)
  const gathered = new Promise(done => peer.onGatheringStateChange(state => state === 'complete' && done()))
  const ended = new Promise(done => {
    peer.onStateChange(state => ['connected', 'failed', 'closed'].includes(state) && done(state))
    setTimeout(() => done('timed out'), 15000)
  })
  peer.setLocalDescription()
  await gathered
  const offer = peer.localDescription().sdp
  const answer = await fetch(url, { method: 'POST', body: offer, headers: { 'Content-Type': 'application/sdp' } })
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`)
  peer.setRemoteDescription(await answer.text(), 'answer')
  const state = await ended
  await fetch(new URL(answer.headers.get('location'), url), { method: 'DELETE' })
  peer.close()
  return state === 'connected'
}

(async () => {
  let connected = 0
  for (let index = 0; index < times; index++) connected += await push()
  console.log(connected)
  process.exit(0)
})()
