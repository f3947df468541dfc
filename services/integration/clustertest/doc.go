// Package clustertest runs a cluster of brokers for tests, each in a process of its own, and breaks it: processes die, stand
// still and lose their files; the links between the brokers, and those of their clients, are cut, stall, slow down and lose
// packets, each pair and each direction by itself.
//
// Every link is a TCP proxy in the test's process ([Link]), so that nothing here needs to be root. What a stalled or lossy
// link holds back comes later and in order, or never, with the end of its connection: that is what TCP makes of lost packets.
// Brokers advertise no address of their own, so that no server and no client finds a way around its link.
//
// Child processes end when the test's process does, however that ends ([EndWithParent]).
package clustertest
