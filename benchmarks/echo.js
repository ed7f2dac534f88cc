// Node's echo servers, by `net`, `tls` and `dgram`.
//
//     node --expose-gc echo.js echo|eight|tls|udp [CERTIFICATE]
//
// eight: the answer goes in pieces of 8 bytes, each a write of its own. It prints its port; for every line that it is
// given it collects garbage and prints 0; it ends with its standard input.

'use strict'

const PIECE = 8
const [scene, certificate] = process.argv.slice(2)

process.stdin.on('data', () => {
  global.gc()
  console.log(0)
})
process.stdin.on('end', () => process.exit())

function ready() {
  console.log(this.address().port)
}

function ignore() {} // clients reset connections

function echo(socket) {
  socket.on('data', data => socket.write(data))
  socket.on('error', ignore)
}

function eight(socket) {
  socket.setNoDelay() // or the second piece would wait for the acknowledgement of the first
  socket.on('data', data => {
    for (let offset = 0; offset < data.length; offset += PIECE) socket.write(data.subarray(offset, offset + PIECE))
  })
  socket.on('error', ignore)
}

if (scene === 'udp') {
  const socket = require('dgram').createSocket('udp4')
  socket.on('message', (data, from) => socket.send(data, from.port, from.address))
  socket.bind(0, '127.0.0.1', ready)
} else if (scene === 'tls') {
  const pem = require('fs').readFileSync(certificate)
  require('tls').createServer({ key: pem, cert: pem }, echo).listen(0, '127.0.0.1', ready)
} else {
  require('net').createServer(scene === 'eight' ? eight : echo).listen(0, '127.0.0.1', ready)
}
