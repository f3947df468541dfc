package enrol

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"chandler/events/trust"
)

// chain is the present trust bundle and the proof of it: the signed bundles that lead from the pinned roots
// to it, without those that a later one makes superfluous. The zero value holds no bundle.
type chain struct {
	bundle    trust.Bundle
	envelopes [][]byte
	roots     []string // fingerprint of the roots that each envelope names
}

// keptChain is trust.json.
type keptChain struct {
	Envelopes [][]byte `json:"envelopes"`
}

// follow goes as far as the envelopes (oldest first) lead, from the pinned root where nothing is kept yet.
// The error says why one was refused; what was reached before it is returned and holds.
func (c chain) follow(root string, envelopes [][]byte) (chain, error) {
	for len(c.envelopes) == 0 && len(envelopes) > 0 {
		first, err := trust.Begin(root, envelopes[:1])
		if err == nil {
			c = chain{first, envelopes[:1:1], []string{first.Roots.Fingerprint()}}
		} else if len(envelopes) == 1 {
			return c, err
		}
		envelopes = envelopes[1:] // older than the roots that the token names
	}
	for _, envelope := range envelopes {
		next, err := c.bundle.Follow([][]byte{envelope})
		if err != nil {
			return c, err
		}
		if next.Version > c.bundle.Version {
			c = c.with(next, envelope)
		}
	}
	return c, nil
}

// with appends a bundle that was verified. The one before it is dropped unless it is what proves its roots.
func (c chain) with(next trust.Bundle, envelope []byte) chain {
	keep, roots := len(c.envelopes), next.Roots.Fingerprint()
	last := keep - 1
	if c.roots[last] == roots && (last == 0 || c.roots[last-1] == roots) {
		keep = last
	}
	return chain{next, append(c.envelopes[:keep:keep], envelope), append(c.roots[:keep:keep], roots)}
}

// readChain verifies what is kept from the pinned root on; nothing kept is the zero chain.
func readChain(dir, root string) (chain, error) {
	data, err := readFile(dir, trustFile, maxTrust)
	if err != nil || data == nil {
		return chain{}, err
	}
	damaged := func(err error) (chain, error) {
		return chain{}, fmt.Errorf("%s was altered: %w; whose orders this machine obeys is no longer certain: enrol it with `chandler-agent enrol --anew`",
			filepath.Join(dir, trustFile), err)
	}
	var kept keptChain
	if err := json.Unmarshal(data, &kept); err != nil {
		return damaged(err)
	}
	c, err := chain{}.follow(root, kept.Envelopes)
	if err != nil {
		return damaged(err)
	}
	if len(c.envelopes) != len(kept.Envelopes) || len(c.envelopes) == 0 {
		return damaged(errors.New("it does not hold what is written"))
	}
	return c, nil
}

func writeChain(dir string, c chain) error {
	data, err := json.Marshal(keptChain{c.envelopes})
	if err != nil {
		return err
	}
	return writePrivate(dir, trustFile, data)
}
