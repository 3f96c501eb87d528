// A web server with nothing but an empty page, where the instruments are tried without Motet.

import { createServer } from 'node:http';

export async function blankSite() {
  const server = createServer((_, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end('<!doctype html><title>blank</title><body></body>');
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  // `localhost` and not the number: the origin that Motet prints, and a secure context in both browsers.
  return { origin: `http://localhost:${server.address().port}`, close: () => new Promise((done) => {
    server.closeAllConnections();
    server.close(done);
  }) };
}
