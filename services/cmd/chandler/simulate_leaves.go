package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"chandler/events/access"
)

// simulatedLeaf is what a process of a leaf node is told.
type simulatedLeaf struct {
	Identity string   `json:"identity"` // directory
	Hub      []string `json:"hub"`      // URLs
	Listen   string   `json:"listen"`
}

// leafLinks is how long a leaf node may take to reach the hub.
const leafLinks = time.Minute

// runSimulatedLeaf is a leaf node alone.
func runSimulatedLeaf(ctx context.Context, told simulatedLeaf, in *inside) error {
	log, err := simulatedLog()
	if err != nil {
		return err
	}
	shown, err := leafFlags{}.certificate(told.Identity)
	if err != nil {
		return err
	}
	l, err := startLeaf(ctx, leafOptions{Identity: told.Identity, Hub: told.Hub, CA: shown.ca, Listen: told.Listen, TLS: shown.config, Log: log})
	if err != nil {
		return err
	}
	defer l.close()
	if !l.linked(ctx, leafLinks) {
		return fmt.Errorf("the leaf node did not reach the hub within %s", leafLinks)
	}
	in.say(childWord{Ready: &childReady{URL: shown.reached(l.url())}})
	<-ctx.Done()
	return nil
}

// agentsEach is how many agents a process holds, so that they are spread evenly over leaf nodes.
func (s *simulation) agentsEach() int {
	return min(maxAgentsEach, (s.size+max(1, s.leafNodes)-1)/max(1, s.leafNodes))
}

// startLeaves makes leaf nodes as an administrator does, and starts each on an address of its own: callers have about 28,000
// ports for one.
func (s *simulation) startLeaves(ctx context.Context) error {
	if s.leafNodes == 0 {
		return nil
	}
	accounts, err := s.lookUpAccounts(ctx, s.client.connection)
	if err != nil {
		return err
	}
	scheme := "nats"
	if s.told.TLS {
		scheme = "tls"
	}
	for number := 1; number <= s.leafNodes; number++ {
		told := simulatedLeaf{Identity: filepath.Join(s.dir, fmt.Sprintf("leaf-%d", number)), Hub: []string{scheme + "://" + s.told.LeafListen}}
		host := fmt.Sprintf("127.0.0.%d", 1+number)
		told.Listen = host + ":0"
		if err := s.makeLeaf(told.Identity, fmt.Sprintf("leaf-%d", number), host, accounts); err != nil {
			return err
		}
		c, ready, err := start(ctx, s, fmt.Sprintf("leaf %d", number), "leaf", told)
		if err != nil {
			return err
		}
		s.leaves, s.sites = append(s.leaves, c), append(s.sites, ready.URL)
	}
	s.step("%s up", plural(len(s.leaves), "leaf node is", "leaf nodes are"))
	return nil
}

// makeLeaf makes the directory of a leaf node.
func (s *simulation) makeLeaf(dir, name, host string, accounts map[string]string) error {
	seed, key, err := newUserKey()
	if err != nil {
		return err
	}
	defer clear(seed)
	administrator := place{s.told.Data}.administrator()
	files, err := leafFiles(administrator, access.User{Name: name, Key: key, Expires: s.now().Add(simulatedLife), Now: s.now()}, seed, accounts)
	if err != nil {
		return err
	}
	var names []string
	if s.told.TLS {
		names = []string{host}
	}
	return s.writeLeaf(dir, files, administrator, names)
}
