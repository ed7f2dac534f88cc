// One end of a connection in Node, that plays a part: for each event what it does the first time it comes.
//
//   node actor.js server '{"socket options": {...}, "connection": [["write", "hello"]], "end": [["end"]], ...}'
//   node actor.js client PORT '{...}'
//
// A server prints "listening PORT" and takes one connection. In the end each prints what it heard, as JSON: its events
// in order (several 'data' in a row count once) and how many bytes came, with their SHA-256.
// test_node.py has the same actor in Python, on twisted_net.
'use strict';
const net = require('net');
const { createHash } = require('crypto');

const role = process.argv[2];
const part = JSON.parse(process.argv[process.argv.length - 1]);
const heard = [];
const data = createHash('sha256');
let bytes = 0;
const played = new Set();
// A socket that is paused keeps no process alive, and neither does its timeout.
const alive = setInterval(() => {}, 1000);

function note(name) {
  if (name !== 'data' || heard[heard.length - 1] !== 'data') heard.push(name);
}

function play(name, socket, server) {
  if (played.has(name)) return;
  played.add(name);
  for (const [verb, ...args] of part[name] || []) {
    if (verb === 'flood') socket.write(Buffer.alloc(args[0]));
    else if (verb === 'fail') socket.destroy(Object.assign(new Error('on purpose'), { code: 'EPURPOSE' }));
    else if (verb === 'server.close') server.close();
    else socket[verb](...args);
  }
}

function listen(socket, server) {
  for (const name of ['connect', 'ready', 'end', 'finish', 'timeout', 'drain', 'lookup']) {
    socket.on(name, () => { note(name); play(name, socket, server); });
  }
  socket.on('data', (chunk) => { bytes += chunk.length; data.update(chunk); note('data'); play('data', socket, server); });
  socket.on('error', (error) => { note(`error ${error.code}`); play('error', socket, server); });
  socket.on('close', (hadError) => {
    note(`close ${hadError}`);
    play('close', socket, server);
    clearInterval(alive);
    if (server) server.close();
  });
}

if (role === 'server') {
  const server = net.createServer(part.options || {}, (socket) => {
    note('connection');
    listen(socket, server);
    play('connection', socket, server);
  });
  server.on('close', () => note('server close'));
  server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
} else {
  const socket = new net.Socket(part.options || {});
  listen(socket, null);
  socket.connect(Number(process.argv[3]), '127.0.0.1');
  play('start', socket, null);
}

process.on('exit', () => console.log(JSON.stringify({ heard, data: `${bytes} bytes, sha256 ${data.digest('hex')}` })));
