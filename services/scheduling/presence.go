package scheduling

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"chandler/events"
)

// Hours of the week in which an agent was heard are kept for two spells: what is older does not describe it any more.
const presenceSpell = 4 * 7 * 24 * time.Hour

// presenceShards is the number of records that presence is stored in, presenceEvery how often each is stored: a fleet of
// 100,000 costs a record of some 50 KB every few seconds, from whichever replica is first.
const (
	presenceShards = 256
	presenceEvery  = time.Hour
	kindPresence   = "presence"
)

// hours has a bit for each hour of the week, from Monday 00:00 UTC, the first highest.
type hours [21]byte

func (h *hours) add(at time.Time) {
	at = at.UTC()
	i := (int(at.Weekday())+6)%7*24 + at.Hour()
	h[i/8] |= 0x80 >> (i % 8)
}

func (h *hours) or(other hours) {
	for i, b := range other {
		h[i] |= b
	}
}

func (h hours) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

func (h *hours) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("%.50q are no hours of a week", text)
	}
	copy(h[:], b)
	return nil
}

// presenceState is when an agent was heard.
type presenceState struct {
	Spell  int64 `json:"s"` // number of the present spell
	Now    hours `json:"n"` // in it
	Before hours `json:"b"` // in the one before
	Heard  int64 `json:"h"` // the last hour, in hours of Unix time
}

func spellOf(at time.Time) int64 { return at.Unix() / int64(presenceSpell/time.Second) }

// reach goes on to a spell.
func (p *presenceState) reach(spell int64) {
	switch {
	case spell == p.Spell+1:
		p.Spell, p.Before, p.Now = spell, p.Now, hours{}
	case spell > p.Spell:
		p.Spell, p.Before, p.Now = spell, hours{}, hours{}
	}
}

// merge adds what another replica heard.
func (p *presenceState) merge(other presenceState) {
	p.reach(other.Spell)
	other.reach(p.Spell)
	p.Now.or(other.Now)
	p.Before.or(other.Before)
	p.Heard = max(p.Heard, other.Heard)
}

// attendance is the presence of one agent. Safe for concurrent use.
type attendance struct {
	mu    sync.Mutex
	state presenceState
}

func (a *attendance) hear(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.reach(spellOf(at))
	a.state.Now.add(at)
	a.state.Heard = max(a.state.Heard, at.Unix()/3600)
}

func (a *attendance) learn(p presenceState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.merge(p)
}

func (a *attendance) get() presenceState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// heard is the last hour in which the agent was; zero: never.
func (a *attendance) heard() time.Time {
	if h := a.get().Heard; h > 0 {
		return time.Unix(h*3600, 0).UTC()
	}
	return time.Time{}
}

// digits is the presence as administrators see it; "": nothing is known.
func (a *attendance) digits(now time.Time) string {
	p := a.get()
	p.reach(spellOf(now))
	p.Now.or(p.Before)
	if p.Now == (hours{}) {
		return ""
	}
	return hex.EncodeToString(p.Now[:])
}

// presenceRecord is the value of presence.<shard> in the bucket of agents.
type presenceRecord struct {
	Agents map[string]presenceState `json:"agents"`
}

func presenceShard(agent string) int {
	h := fnv.New32a()
	h.Write([]byte(agent))
	return int(h.Sum32() % presenceShards)
}

// applyPresence takes over what the bucket says.
func (s *Service) applyPresence(value []byte) error {
	if value == nil {
		return nil
	}
	var r presenceRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	for id, p := range r.Agents {
		s.fleet.attendanceOf(id).learn(p)
	}
	return nil
}

// keepPresence stores when agents were heard, one shard after the other, so that each comes up once in presenceEvery.
func (s *Service) keepPresence(ctx context.Context) error {
	for shard := 0; pause(ctx, presenceEvery/presenceShards); shard = (shard + 1) % presenceShards {
		if err := s.storePresence(ctx, shard); err != nil && ctx.Err() == nil {
			s.log.Warn("when agents were heard cannot be stored and will be an hour later", "error", err)
		}
	}
	return nil
}

// storePresence adds to a shard what this replica heard; agents that left the fleet are left out.
func (s *Service) storePresence(ctx context.Context, shard int) error {
	known := s.fleet.attendances(shard)
	_, err := change(ctx, s.agentStore, kindPresence+"."+strconv.Itoa(shard), func(old presenceRecord, found bool) (presenceRecord, error) {
		merged := presenceRecord{Agents: map[string]presenceState{}}
		for id, p := range known {
			if before, ok := old.Agents[id]; ok {
				p.merge(before)
			}
			if p.Heard > 0 {
				merged.Agents[id] = p
			}
		}
		if maps.Equal(merged.Agents, old.Agents) {
			return old, errKeep
		}
		return merged, nil
	})
	return err
}

// attendanceOf finds or begins the presence of an agent, also of one whose facts are still to be read.
func (f *fleet) attendanceOf(id string) *attendance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attends(id)
}

// attends is attendanceOf for who holds the lock.
func (f *fleet) attends(id string) *attendance {
	a, ok := f.attendance[id]
	if !ok {
		a = &attendance{}
		f.attendance[id] = a
	}
	return a
}

// attendances gives the presence of the fleet's agents of a shard.
func (f *fleet) attendances(shard int) map[string]presenceState {
	f.mu.RLock()
	defer f.mu.RUnlock()
	found := map[string]presenceState{}
	for id, a := range f.agents {
		if presenceShard(id) == shard {
			found[id] = a.attendance.get()
		}
	}
	return found
}

// isPresence tells keys of presence from ids of agents, which hold no dot.
func isPresence(key string) bool { return strings.HasPrefix(key, kindPresence+".") }

// agentView is the agent for administrators.
func (s *Service) agentView(a *agent) events.AgentView {
	return events.AgentView{Facts: a.facts, LastSeen: a.lastSeen(), Reported: a.reported, Presence: a.attendance.digits(s.now()), Twins: a.runs.twice()}
}
