package scheduling

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

const (
	// twinWindow is twice the interval of heartbeats and a minute: a run of an agent that is not heard for so
	// long has ended, or is as good as that.
	twinWindow = 5 * time.Minute
	// twinsEvery is how often it is told of one agent that it runs twice, at most.
	twinsEvery = time.Hour
)

// instanceForm is what agents say; anything else is no instance, so that memory stays bounded.
var instanceForm = regexp.MustCompile(`^[a-z0-9]{16}$`)

// watch is what is remembered of the runs of an agent, however many there are: one of them is watched, and when
// it is heard again after another one, both run. It is not enough to remember the last two, since three
// copies speak in turns. One that ended is never heard again, and the watch goes to the next.
type watch struct {
	instance string
	heard    time.Time
	other    string // heard after that; "": none
}

// hear takes a heartbeat. twin is another run that was there at the same time; "": none is known.
func (w watch) hear(instance string, at time.Time) (next watch, twin string) {
	late := at.Sub(w.heard) > twinWindow
	switch {
	case instance == w.instance:
		if !late { // else the machine slept: what was heard meanwhile may have ended
			twin = w.other
		}
		return watch{instance: instance, heard: at}, twin
	case w.instance == "" || late:
		return watch{instance: instance, heard: at}, ""
	}
	w.other = instance
	return w, ""
}

// runs is the watch over one agent, and what came of it. Safe for concurrent use.
type runs struct {
	mu    sync.Mutex
	watch watch
	twins time.Time // two were heard
	told  time.Time // it was told
}

// hear takes a heartbeat; tell says that the agent runs twice and that it is time to tell it.
func (r *runs) hear(instance string, at time.Time) (other string, tell bool) {
	if !instanceForm.MatchString(instance) {
		return "", false // an agent of before instances
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watch, other = r.watch.hear(instance, at); other == "" {
		return "", false
	}
	r.twins = at
	return other, r.due(at)
}

// due says whether it is time to tell again. The caller holds the lock.
func (r *runs) due(at time.Time) bool { return r.told.IsZero() || at.Sub(r.told) >= twinsEvery }

// take says whether it is still to be told, and notes that it was.
func (r *runs) take(at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.due(at) {
		return false
	}
	r.told = at
	return true
}

// giveBack lets the next heartbeats tell it after all.
func (r *runs) giveBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = time.Time{}
}

// twice is when two were heard last; zero: never.
func (r *runs) twice() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.twins.UTC()
}

// twins is the news that an agent runs twice.
type twins struct {
	runs   *runs
	notice events.TwinsNotice
}

func newTwins(a *agent, one, other string, at time.Time) *twins {
	found := events.TwinsNotice{Agent: a.facts.ID, Hostname: a.facts.Hostname, Instances: []string{one, other}, At: at.UTC()}
	slices.Sort(found.Instances)
	return &twins{runs: a.runs, notice: found}
}

// tellTwins logs and publishes what heartbeats showed, beside their handler, which must not wait for the broker.
func (s *Service) tellTwins(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case found := <-s.twinsFound:
			if !found.runs.take(found.notice.At) {
				continue // it was told since it was found
			}
			if err := s.announceTwins(ctx, found.notice); err != nil && ctx.Err() == nil {
				found.runs.giveBack()
				s.log.WarnContext(ctx, "agents that run twice cannot be told of", "agent", found.notice.Agent, "error", err)
			}
		}
	}
}

// announceTwins tells it unless a replica did within the hour. Those that find it at the same time give the
// event the same id.
func (s *Service) announceTwins(ctx context.Context, n events.TwinsNotice) error {
	last, err := lastTold(ctx, s, events.AgentTwins, n.Agent)
	if err != nil {
		return fmt.Errorf("look for what was told: %w", err)
	}
	if last != nil && n.At.Sub(last.At) < twinsEvery {
		return nil
	}
	hour := n.At.Truncate(twinsEvery).Format(time.RFC3339)
	if _, err := bus.Publish(ctx, s.bus, events.AgentTwins, events.Event[events.TwinsNotice]{
		ID: events.DeriveID(events.AgentTwins.Name, n.Agent, hour), Subject: n.Agent, Time: n.At, Data: n}); err != nil {
		return err
	}
	s.log.WarnContext(ctx, "several agents run with one identity: its state directory was copied", "agent", n.Agent, "hostname", n.Hostname, "instances", n.Instances)
	return nil
}
