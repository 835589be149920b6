/** The kernel's network configuration: interfaces, addresses, routes, neighbours (rtnetlink(7)). */
export {
  addAddress,
  addRoute,
  type InterfaceAddress,
  listAddresses,
  listNeighbours,
  listRoutes,
  type Neighbour,
  type Route,
  removeAddress,
  resolveNeighbour,
  setNeighbour,
} from './address.ts';
export { watchChanges } from './changes.ts';
export {
  createVethPair,
  deleteLink,
  type Link,
  linkByIndex,
  linkByName,
  listLinks,
  missingLink,
  moveToNamespace,
  moveToNamespaceOfPid,
  requireLink,
  setAlias,
  setLinkDown,
  setLinkUp,
  setMac,
  setMtu,
  type VethEnd,
} from './link.ts';
export {
  NUD_NOARP,
  NUD_PERMANENT,
  NUD_REACHABLE,
  RTMGRP_IPV4_IFADDR,
  RTMGRP_IPV4_ROUTE,
  RTMGRP_LINK,
  RTMGRP_NEIGH,
} from './rtnetlink.ts';
export { NetlinkSocket } from './socket.ts';
export { type LinkEvent, watchLinks } from './watch.ts';
