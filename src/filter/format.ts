/**
 * Filters as canonical text, in the words that parse.ts reads: `parseFilter(formatFilter(f))` equals `f`.
 *
 * One conjunction for each box, in this order: protocol, source, destination. What has no word in tcpdump's language
 * has one of ours beside it: `hostrange A-B`, `ip proto 18-255`.
 */
import { formatIpv4 } from '../base/address.ts';
import { type Box, DIM, type Filter, isWhole, PROTOCOL, SPACE_LAST } from './boxes.ts';

const NAMES = new Map<number, string>(Object.entries(PROTOCOL).map(([name, n]) => [n, name]));

/** `udp and dst host 10.9.0.2 and dst port 11211`; boxes are joined by `or`, in parentheses when they need them. */
export function formatFilter(filter: Filter): string {
  const { boxes } = filter;
  if (boxes.length === 0) return 'not any';
  const words = boxes.map(termsOf);
  if (words.length === 1) return words[0]!.join(' and ');
  return words
    .map((terms) => (terms.length > 1 ? `(${terms.join(' and ')})` : terms[0]))
    .join(' or ');
}

function termsOf(box: Box): string[] {
  const terms = [
    ...protocolTerms(box),
    ...addressTerms(box, DIM.source, 'src'),
    ...addressTerms(box, DIM.destination, 'dst'),
    ...portTerms(box),
  ];
  return terms.length === 0 ? ['any'] : terms;
}

function protocolTerms(box: Box): string[] {
  if (isWhole(box, DIM.protocol)) return [];
  const [first, last] = rangeOf(box, DIM.protocol);
  if (first !== last) return [`ip proto ${first}-${last}`];
  return [NAMES.get(first) ?? `ip proto ${first}`];
}

function addressTerms(box: Box, d: number, side: string): string[] {
  if (isWhole(box, d)) return [];
  const [first, last] = rangeOf(box, d);
  if (first === last) return [`${side} host ${formatIpv4(first)}`];
  const prefix = prefixOf(first, last);
  if (prefix >= 0) return [`${side} net ${formatIpv4(first)}/${prefix}`];
  return [`${side} hostrange ${formatIpv4(first)}-${formatIpv4(last)}`];
}

/** Prefix length of the network that goes from `first` to `last`; -1 when that is none. */
function prefixOf(first: number, last: number): number {
  const size = last - first + 1;
  const bits = Math.log2(size);
  return Number.isInteger(bits) && first % size === 0 ? 32 - bits : -1;
}

function portTerms(box: Box): string[] {
  if (isWhole(box, DIM.ports)) return [];
  if (box.last[DIM.ports] === 0) return [`not portrange 0-${SPACE_LAST[DIM.sourcePort]}`];
  const terms = [
    ...(isWhole(box, DIM.sourcePort) ? [] : [portTerm(box, DIM.sourcePort, 'src')]),
    ...(isWhole(box, DIM.destinationPort) ? [] : [portTerm(box, DIM.destinationPort, 'dst')]),
  ];
  // Any ports, but ports: no fragment after the first.
  return terms.length === 0 ? [portTerm(box, DIM.destinationPort, 'dst')] : terms;
}

function portTerm(box: Box, d: number, side: string): string {
  const [first, last] = rangeOf(box, d);
  return first === last ? `${side} port ${first}` : `${side} portrange ${first}-${last}`;
}

const rangeOf = (box: Box, d: number): [number, number] => [box.first[d]!, box.last[d]!];
