// A datagram socket of Node's own.
//
//   node dgram.js echo udp4|udp6         prints "listening PORT", and sends back what comes until "bye" does
//   node dgram.js ask udp4|udp6 PORT     sends what comes on stdin as lines (in base64), each after the answer to the
//                                        one before, and prints each answer in base64
//   node dgram.js refused udp4 PORT      connects, sends, and prints the error's code
'use strict';
const dgram = require('dgram');
const readline = require('readline');

const [role, type, port] = process.argv.slice(2);
const host = type === 'udp6' ? '::1' : '127.0.0.1';
const socket = dgram.createSocket(type);

if (role === 'echo') {
  socket.on('message', (data, from) => {
    socket.send(data, from.port, from.address, () => { if (data.toString() === 'bye') socket.close(); });
  });
  socket.bind(0, host, () => console.log(`listening ${socket.address().port}`));
} else if (role === 'ask') {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) socket.close();
    else socket.send(Buffer.from(value, 'base64'), Number(port), host);
  };
  socket.on('message', (data) => { console.log(data.toString('base64')); next(); });
  socket.bind(0, host, next);
} else {
  socket.on('error', (error) => { console.log(error.code); socket.close(); });
  socket.connect(Number(port), host, () => socket.send('hello'));
}
