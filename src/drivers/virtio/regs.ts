/** What the network driver uses of virtio 1.2 and vhost-user: features, vrings, and the per-frame header. */
import { FEATURE, featureSet, PROTOCOL_FEATURE } from '../../ring/vhost-user.ts';

/**
 * Virtqueues of one queue pair (virtio 1.2, section 5.1.2): the device writes into 0 and reads from 1. Those of the
 * next pair are 2 and 3, and so on.
 */
export const RECEIVEQ = 0;
export const TRANSMITQ = 1;
export const QUEUES_PER_PAIR = 2;

/** Without these the driver does not work with a device. */
export const FEATURES_REQUIRED = featureSet(FEATURE.VIRTIO_F_VERSION_1);
/** Taken when the device offers them. Without FEATURES_OFFLOAD a frame is one whole buffer. */
export const FEATURES_WANTED = featureSet(
  FEATURE.VIRTIO_F_VERSION_1,
  FEATURE.VIRTIO_RING_F_EVENT_IDX,
  FEATURE.VHOST_USER_F_PROTOCOL_FEATURES,
);
/** Taken as well by who asks for offloads. Frames of up to 64 KiB come in several buffers, so cutting needs merging. */
export const FEATURES_OFFLOAD = featureSet(
  FEATURE.VIRTIO_NET_F_CSUM,
  FEATURE.VIRTIO_NET_F_HOST_TSO4,
  FEATURE.VIRTIO_NET_F_HOST_TSO6,
  FEATURE.VIRTIO_NET_F_GUEST_CSUM,
  FEATURE.VIRTIO_NET_F_GUEST_TSO4,
  FEATURE.VIRTIO_NET_F_GUEST_TSO6,
  FEATURE.VIRTIO_NET_F_MRG_RXBUF,
);
/** Taken as well with several queue pairs. Pairs are switched on by SET_VRING_ENABLE: there is no control queue. */
export const FEATURES_MULTIQUEUE = featureSet(FEATURE.VIRTIO_NET_F_MQ);
export const PROTOCOL_FEATURES_WANTED = featureSet(PROTOCOL_FEATURE.MQ, PROTOCOL_FEATURE.REPLY_ACK);

/**
 * Bytes of the region before the first ring. Left unused, so that 0 is never the address of anything: some devices
 * take a zero address for "not set".
 */
export const REGION_RESERVED = 4096;
