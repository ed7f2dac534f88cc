// 20 MB and more through a connection, each way as fast as the other end takes it.
//
//   node stream.js client PORT BYTES   sends that many, minding write() and 'drain', ends, and compares the echo
//   node stream.js server              echoes one connection with socket.pipe(socket)
'use strict';
const net = require('net');
const { createHash, randomBytes } = require('crypto');

if (process.argv[2] === 'server') {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    server.close();
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
} else {
  const sent = createHash('sha256');
  const received = createHash('sha256');
  const chunk = randomBytes(100000);
  let left = Number(process.argv[4]);
  let drains = 0;
  let most = 0;
  let bytes = 0;
  const socket = net.connect({ port: Number(process.argv[3]), host: '127.0.0.1', allowHalfOpen: true });
  const send = () => {
    while (left > 0) {
      const piece = chunk.subarray(0, Math.min(left, chunk.length));
      left -= piece.length;
      sent.update(piece);
      const more = socket.write(piece);
      most = Math.max(most, socket.writableLength);
      if (!more) {
        drains += 1;
        socket.once('drain', send);
        return;
      }
    }
    socket.end();
  };
  socket.on('connect', send);
  socket.on('data', (piece) => {
    bytes += piece.length;
    received.update(piece);
    if (bytes % 7 === 0) { // now and then a reader that is not there
      socket.pause();
      setTimeout(() => socket.resume(), 2);
    }
  });
  socket.on('close', (hadError) => {
    const same = sent.digest('hex') === received.digest('hex');
    console.log(JSON.stringify({ bytes, same, hadError, drains, most }));
  });
}
