/** The servers of `arrakis bench scaling`: the echo application on a VNIC of one or more queue pairs, a thread each. */
import { formatIpv4, formatMac } from '../../src/base/address.ts';
import { ECHO_APP, LabDaemon, type VethLab } from '../echo/lab.ts';
import type { Server } from '../echo/systems.ts';

const PORT = 7;
const SOFT_SERVER = '10.77.0.7';
const SOFT_CLIENT = '10.77.0.8';
/** The device's, or on a wire the client's: a processor that one queue pair does not use. */
const CLIENT_CPU = 1;
/** Processors of the server's threads, in order. */
const SERVER_CPUS = '0,1';

export interface ScalingSystem {
  readonly name: string;
  readonly link: 'softnic' | 'veth';
  /** What limits it, with one thread and with two. */
  readonly boundBy: (queues: number) => string;
  start(lab: VethLab | null, queues: number): Promise<Server>;
}

const isRoot = (): boolean => process.getuid?.() === 0;

const virtio: ScalingSystem = {
  name: 'arrakis/virtio',
  link: 'softnic',
  boundBy: (queues) =>
    queues === 1
      ? 'the software NIC, one process for all ports, beside the client on the second processor'
      : 'two processors for four: both threads, the software NIC and the client',
  async start(_lab, queues) {
    const daemon = await LabDaemon.start(undefined, ['--no-tap', '--nic-cpu', String(CLIENT_CPU)]);
    const user = isRoot() ? ['--user', 'nobody'] : [];
    const spec = `soft0,ip=${SOFT_SERVER}/24,queues=${queues}`;
    const running = daemon.run(['--vnic', spec, '--cpu', SERVER_CPUS, ...user, '--', ECHO_APP]);
    return {
      address: SOFT_SERVER,
      port: PORT,
      mac: null,
      client: ['vnic', `soft0,ip=${SOFT_CLIENT}/24`],
      clientAddress: SOFT_CLIENT,
      clientEnv: daemon.env,
      // Any: it takes turns with the device there, or with a thread.
      clientCpus: null,
      async stop() {
        await running.stop();
        await daemon.close();
      },
    };
  },
};

const switched: ScalingSystem = {
  name: 'arrakis/af-xdp-switched',
  link: 'veth',
  boundBy: (queues) =>
    queues === 1
      ? 'the system call that sends, and the XDP programs and receive softirqs that run within it'
      : 'two processors for three: both threads and the client, each with the softirqs of what it sends',
  async start(lab, queues) {
    const { server, client } = lab!;
    const daemon = await LabDaemon.start(server.network, ['--no-tap']);
    const spec = `${server.interfaceName},mode=switched,port=udp:${PORT},queues=${queues}`;
    const run = ['--vnic', spec, '--cpu', SERVER_CPUS, '--user', 'nobody', '--', ECHO_APP];
    const running = daemon.run(run);
    return {
      address: formatIpv4(server.address),
      port: PORT,
      mac: formatMac(server.mac),
      client: ['xdp', client.interfaceName],
      clientAddress: formatIpv4(client.address),
      clientEnv: {},
      clientCpus: [CLIENT_CPU],
      async stop() {
        await running.stop();
        await daemon.close();
      },
    };
  },
};

/** What can run here: AF_XDP needs root. */
export const scalingSystems = (): ScalingSystem[] => (isRoot() ? [virtio, switched] : [virtio]);
