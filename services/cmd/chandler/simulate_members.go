package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/agent/enrol"
	"chandler/agent/fleet"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
)

// simulatedMember is an agent as the parent knows it.
type simulatedMember struct {
	ID   string `json:"id"`
	Away bool   `json:"away,omitempty"` // leaves when it is told to
}

// memberMaker makes the agents of one process. They get their identities in one of three ways: minted by the agents'
// signing key, by a token, or not at all.
type memberMaker struct {
	First   int     `json:"first"` // number of the first agent, from 1
	Count   int     `json:"count"`
	Prefix  string  `json:"prefix"` // of host names
	Seed    uint64  `json:"seed"`
	Offline float64 `json:"offline"`

	SigningKey string `json:"signing_key,omitempty"` // seed of the agents' signing key
	Account    string `json:"account,omitempty"`     // the agents', by its public key
	Token      string `json:"token,omitempty"`
	Dir        string `json:"dir,omitempty"` // for state directories of agents that enrol
}

// simulatedLife is how long a minted identity is good for.
const simulatedLife = 24 * time.Hour

func (m memberMaker) members(ctx context.Context) ([]fleet.Member, error) {
	if m.Token != "" {
		return m.enrolled(ctx)
	}
	var signing nkeys.KeyPair
	if m.SigningKey != "" {
		var err error
		if signing, err = nkeys.FromSeed([]byte(m.SigningKey)); err != nil {
			return nil, fmt.Errorf("the agents' signing key: %w", err)
		}
		defer signing.Wipe()
	}
	members := make([]fleet.Member, m.Count)
	for i := range members {
		var err error
		if members[i], err = m.minted(m.First+i, signing); err != nil {
			return nil, fmt.Errorf("make agent %d: %w", m.First+i, err)
		}
	}
	return members, nil
}

// minted is an agent whose key follows from the seed, so that a run can be repeated with the same agents.
func (m memberMaker) minted(number int, signing nkeys.KeyPair) (fleet.Member, error) {
	raw := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte("chandler simulate key"), m.Seed), uint64(number)))
	key, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, raw[:])
	if err != nil {
		return fleet.Member{}, err
	}
	defer key.Wipe()
	public, err := key.PublicKey()
	if err != nil {
		return fleet.Member{}, err
	}
	one := fleet.Member{ID: events.AgentID([]byte(public))}
	one.Facts = m.facts(number, one.ID)
	if signing == nil {
		return one, nil
	}
	seed, err := key.Seed()
	if err != nil {
		return one, err
	}
	one.Seed = slices.Clone(seed)
	one.JWT, err = access.Mint(access.Agent, signing, m.Account, access.User{Name: one.ID, Key: public, Expires: time.Now().Add(simulatedLife)})
	return one, err
}

// facts are those of an office computer; the site is one of ten.
func (m memberMaker) facts(number int, id string) events.Facts {
	return events.Facts{
		ID: id, Hostname: m.host(number), OS: "linux", OSName: "debian", OSVersion: "12.7", Arch: "amd64", Kernel: "6.1.0", Addresses: []string{fmt.Sprintf("198.51.100.%d", 1+number%250)},
		Site: fmt.Sprintf("site-%d", number%10), Tags: []string{"simulated"}, ClientKind: events.Advanced, MemoryBytes: 8 << 30, Version: version, Privileged: true,
		OfferFormat: events.OfferFormat, Zone: "UTC", BootID: "simulated",
	}
}

func (m memberMaker) host(number int) string { return fmt.Sprintf("%s%05d", m.Prefix, number) }

// away says whether an agent is among those that leave: chance, by seed and agent.
func (m memberMaker) away(id string) bool {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("chandler simulate away "+id), m.Seed))
	return float64(binary.BigEndian.Uint64(h[:])>>11)/(1<<53) < m.Offline
}

// enrolling is how many agents of a process enrol at a time.
const enrolling = 8

// enrolled lets the agents enrol as real ones do, each with a key drawn for it.
func (m memberMaker) enrolled(ctx context.Context) ([]fleet.Member, error) {
	token, err := enrolment.ParseToken(m.Token)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	members, next := make([]fleet.Member, m.Count), make(chan int)
	errs := make([]error, m.Count)
	var wg sync.WaitGroup
	for range min(enrolling, m.Count) {
		wg.Go(func() {
			for i := range next {
				if members[i], errs[i] = m.enrol(ctx, m.First+i, token); errs[i] != nil {
					cancel()
				}
			}
		})
	}
	for i := 0; i < m.Count && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	for i, err := range errs { // the first says what is wrong; others were interrupted by it
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("enrol %s: %w", m.host(m.First+i), err)
		}
	}
	return members, ctx.Err()
}

func (m memberMaker) enrol(ctx context.Context, number int, token enrolment.Token) (fleet.Member, error) {
	dir := filepath.Join(m.Dir, m.host(number))
	keeper, err := enrol.New(enrol.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fleet.Member{}, err
	}
	facts := m.facts(number, keeper.ID())
	if err := keeper.Enrol(ctx, token, facts); err != nil {
		return fleet.Member{}, err
	}
	options, err := keeper.NATSOptions()
	if err != nil {
		return fleet.Member{}, err
	}
	var shown nats.Options
	for _, set := range options {
		if err := set(&shown); err != nil {
			return fleet.Member{}, err
		}
	}
	one := fleet.Member{ID: keeper.ID(), Facts: facts}
	if one.JWT, err = shown.UserJWT(); err != nil {
		return one, err
	}
	one.Seed, err = os.ReadFile(filepath.Join(dir, "agent.key"))
	return one, err
}
