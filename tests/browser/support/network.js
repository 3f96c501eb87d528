// An address for browsers to send to. Firefox never pairs a network interface with a server at 127.0.0.1 and gathers no candidate at
// all on loopback, so on a machine that has only loopback an interface is made for the time of the test.

import { execFileSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';

const own = (address) => !address.internal && (address.family === 'IPv4' || address.family === 4) && !address.address.startsWith('169.254.');

/** The first IPv4 address that is not loopback, or null. */
export function outerAddress() {
  for (const addresses of Object.values(networkInterfaces())) {
    const found = addresses.find(own);
    if (found) return found.address;
  }
  return null;
}

function ip(...args) {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

// One network of the range for benchmarks (RFC 2544) per process, so that two runs beside each other do not meet.
const name = `motet${process.pid % 100_000}`;
const address = `198.18.${process.pid % 250}.1`;

/**
 * `{ address, made, remove() }`. `made` names the interface that was created and that `remove` takes away again; null where the
 * machine has an address of its own. Making one needs root.
 */
export function acquireAddress() {
  const present = outerAddress();
  if (present) return { address: present, made: null, remove() {} };
  try {
    if (process.getuid() !== 0) throw new Error('not root');
    ip('link', 'set', 'lo', 'up');
    try {
      ip('link', 'add', name, 'type', 'dummy');
    } catch {
      // A kernel without dummy interfaces may have pairs.
      ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`);
      ip('link', 'set', `${name}p`, 'up');
    }
    ip('addr', 'add', `${address}/24`, 'dev', name);
    ip('link', 'set', name, 'up');
    // A browser takes the interface of its default route for the machine's own address.
    try { ip('route', 'add', 'default', 'dev', name); } catch { /* there is one */ }
  } catch (error) {
    throw new Error(`this machine has only loopback, which Firefox does not use for calls, and an interface cannot be made: ${error.message}`);
  }
  const remove = () => {
    try { ip('link', 'del', name); } catch { /* gone */ }
  };
  process.once('exit', remove);
  return { address, made: name, remove };
}
