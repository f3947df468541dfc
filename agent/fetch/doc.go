// Package fetch brings a package's content to the machine and hands each run a fresh, verified copy.
//
// Fetch gets blobs from the addresses that content names, by the [Source] of each address's scheme, into a
// content-addressed cache; Stage copies a package's files out of it, hashing every byte again on the way,
// immediately before a run. What to trust comes from the package's manifest alone, whose digest is signed:
// no source, proxy or file in the cache is believed.
//
// # Under failure
//
// A transfer that is cut, by the network or by the end of the agent, goes on where it was: what is on the
// disk is held against the manifest's block digests first. A block that does not match is never kept, and
// the next address is tried. A stored blob that decayed is thrown out when Stage meets it and the failure
// is one that is tried again. The cache never grows above its limit; blobs that no job holds go first,
// least recently used. A full disk leaves no partial file. Every failure is an [*Error] with a reason of
// package events, who tried what, and what it answered; addresses in it have lost their signatures.
package fetch
