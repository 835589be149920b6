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
  setNeighbour,
} from './address.ts';
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
export { NetlinkSocket } from './socket.ts';
export { type LinkEvent, watchLinks } from './watch.ts';
