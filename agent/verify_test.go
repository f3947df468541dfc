package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/fetch"
	"chandler/agent/identity"
	"chandler/agent/journal"
	"chandler/agent/report"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// machine is an agent with a journal and a cache, without a broker: orders are in the journal, blobs in memory.
type machine struct {
	*Agent
	t     *testing.T
	ahead time.Duration     // of its clock
	blobs map[string][]byte // by digest
}

const machineID = "agent0001"

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, blobs: map[string][]byte{}}
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	a := &Agent{id: machineID, log: log, metrics: newMetrics(prometheus.NewRegistry()), slots: newSlots(1), tasks: map[string]*task{},
		readers: map[string]lender{}, restarts: map[string]awaited{}, thawed: make(chan struct{}), jobLogs: newJobLogs(dir), ctx: t.Context(),
		facts: events.Facts{ID: machineID, OS: "linux", ClientKind: events.Advanced}}
	a.Options = Options{StateDir: dir, ClientKind: events.Advanced, Clock: func() time.Time { return time.Now().Add(m.ahead) }, Trust: trusting(),
		Runners: map[string]execute.Runner{identity.System.Runner(): systemrunner.New()}}
	a.setDefaults()
	store, err := journal.Open(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	if a.journal, err = store.Agent(a.id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.running.Wait(); a.jobLogs.close(); store.Close() })
	a.reporter = report.New(report.Options{Agent: a.id, Journal: a.journal, Metrics: a.metrics.report, Log: log})
	a.fetcher, err = fetch.New(fetch.Options{Dir: filepath.Join(dir, "cache"), Sources: map[string]fetch.Source{"memory": m}, Log: log, Attempts: 1,
		Locate: func(_ context.Context, digests []string) (map[string][]string, error) {
			return map[string][]string{digests[0]: {"memory://here/" + digests[0]}}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	m.Agent = a
	return m
}

// Open gives a blob of memory.
func (m *machine) Open(_ context.Context, ref fetch.Ref, _ int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return io.NopCloser(bytes.NewReader(m.blobs[ref.SHA256])), nil
}

// kept is what the journal says of a job.
func (m *machine) kept(id string) journal.Job {
	m.t.Helper()
	job, _, err := m.journal.Job(id)
	if err != nil {
		m.t.Fatal(err)
	}
	return job
}

func signer(name string) sign.Key {
	key, err := sign.NewKey([]byte(fmt.Sprintf("%-32s", name)))
	if err != nil {
		panic(err) // the seed has the right length
	}
	return key
}

func public(name string) sign.PublicKey { return signer(name).Public().Named(name) }

// trusting is a bundle with the deployers ada and bob, and the publishers pam and pat.
func trusting(change ...func(*trust.Bundle)) trust.Bundle {
	b := trust.Bundle{Fleet: "demo", Version: 1, Threshold: 1, Keys: []sign.PublicKey{public("ada"), public("bob")}, Publishers: []sign.PublicKey{public("pam"), public("pat")}}
	for _, c := range change {
		c(&b)
	}
	return b
}

// revoked leaves bob and pat, without the key of that name.
func revoked(name string) func(*trust.Bundle) {
	return func(b *trust.Bundle) {
		b.Version++
		b.Keys, b.Publishers = []sign.PublicKey{public("bob")}, []sign.PublicKey{public("pat")}
		b.Revoked = []trust.RevokedKey{{PublicKey: public(name), At: time.Now()}}
	}
}

// given is what an agent is given to verify. Everything is right until it is changed.
type given struct {
	manifest             events.Manifest
	order                order.Order
	publishers, deployer []string
	blob                 func(envelope []byte) []byte // what content hands out
}

// offer puts the order into the journal and the manifest into memory, and gives the task.
func (m *machine) offer(change ...func(*given)) *task {
	m.t.Helper()
	now := m.Clock()
	g := given{publishers: []string{"pam"}, deployer: []string{"ada"}, blob: func(e []byte) []byte { return e },
		manifest: events.Manifest{API: manifest.API, Package: "hello", Version: "1", Programs: map[string]events.Program{"install": {Command: events.Command{Argv: []string{"true"}}, Run: events.RunAdministrative}}},
		order: order.Order{Fleet: "demo", Deployment: "hello", Revision: 1, Package: "hello", Version: "1", Program: "install", Run: events.RunAdministrative, Collection: "all", Expression: "true",
			Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunAlways, Issued: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour)}}
	for _, c := range change {
		c(&g)
	}
	sealed, err := manifest.Seal(g.manifest, signers(g.publishers)...)
	if err != nil {
		m.t.Fatal(err)
	}
	sealed = g.blob(sealed)
	m.blobs[events.DigestOf(sealed)] = sealed
	if g.order.Manifest == "" {
		g.order.Manifest = events.DigestOf(sealed)
	}
	envelope, err := order.Sign(g.order, signers(g.deployer)...)
	if err != nil {
		m.t.Fatal(err)
	}
	_, digest, err := order.Open(envelope)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.journal.KeepOrder(digest, events.OrderAnswer{Envelope: envelope}); err != nil {
		m.t.Fatal(err)
	}
	t := m.newTask(journal.Job{Offer: events.JobOffer{Job: events.JobID("hello", 1, m.id, g.order.Occurrence(), ""), Occurrence: g.order.Occurrence(), Deployment: "hello", Revision: 1, Order: digest, Attempt: 1}})
	t.facts = m.Facts()
	return t
}

func signers(names []string) (all []sign.Signer) {
	for _, name := range names {
		all = append(all, signer(name))
	}
	return all
}

// seen is the arrival of another revision, for whomever it is meant.
func (m *machine) seen(revision uint64, target string) {
	m.t.Helper()
	t := m.offer(func(g *given) {
		g.order.Revision, g.order.Expression, g.deployer, g.publishers = revision, target, []string{"bob"}, []string{"pat"}
	})
	t.job.Offer.Revision = revision
	if err := t.verify(m.t.Context()); (err == nil) != (target == "true") {
		m.t.Fatalf("revision %d for %s: %v", revision, target, err)
	}
}

// until takes a task through the stages up to one of them, and says how that ended; "": it passed.
func (m *machine) until(t *task, last string) (events.State, events.Reason) {
	m.t.Helper()
	for _, s := range stages() {
		if s.name == "prepare" || s.name == "wait" {
			continue
		}
		if err := s.do(t, m.t.Context()); err != nil {
			e := asEnding(err)
			return e.state, e.reason
		}
		if s.name == last {
			return "", ""
		}
	}
	m.t.Fatalf("there is no stage %s", last)
	return "", ""
}

func TestAnAgentRunsNothingThatIsNotSignedByThoseItTrusts(t *testing.T) {
	another := func(g *given) { g.publishers = nil; g.manifest.Comment = "other" }
	for name, c := range map[string]struct {
		change func(*given)
		trust  func(*trust.Bundle)
		state  events.State
		reason events.Reason
	}{
		"all is right": {},
		"signed by a stranger too": {change: func(g *given) {
			g.publishers, g.deployer = []string{"pam", "mallory"}, []string{"ada", "mallory"}
		}},
		"an order that nobody signed":              {change: func(g *given) { g.deployer = nil }, state: events.Rejected, reason: events.OrderUnsigned},
		"an order that a stranger signed":          {change: func(g *given) { g.deployer = []string{"mallory"} }, state: events.Rejected, reason: events.OrderUnknownKey},
		"an order that a publisher signed":         {change: func(g *given) { g.deployer = []string{"pam"} }, state: events.Rejected, reason: events.OrderUnknownKey},
		"an order whose deployer is revoked":       {trust: revoked("ada"), state: events.Rejected, reason: events.OrderRevokedKey},
		"too few signatures":                       {trust: func(b *trust.Bundle) { b.Threshold = 2 }, state: events.Rejected, reason: events.OrderUnsigned},
		"an order of another fleet":                {change: func(g *given) { g.order.Fleet = "other" }, state: events.Rejected, reason: events.OrderOtherFleet},
		"a manifest that nobody signed":            {change: func(g *given) { g.publishers = nil }, state: events.Rejected, reason: events.ManifestUnsigned},
		"a manifest that a stranger signed":        {change: func(g *given) { g.publishers = []string{"mallory"} }, state: events.Rejected, reason: events.ManifestUnsigned},
		"a manifest that a deployer signed":        {change: func(g *given) { g.publishers = []string{"ada"} }, state: events.Rejected, reason: events.ManifestUnsigned},
		"a manifest whose publisher is revoked":    {change: func(g *given) { g.deployer = []string{"bob"} }, trust: revoked("pam"), state: events.Rejected, reason: events.ManifestUnsigned},
		"a bundle without publishers":              {trust: func(b *trust.Bundle) { b.Publishers = nil }, state: events.Rejected, reason: events.ManifestUnsigned},
		"a manifest without an envelope":           {change: func(g *given) { g.blob = func([]byte) []byte { return []byte("{}") } }, state: events.Rejected, reason: events.ManifestMismatch},
		"a manifest of another package":            {change: func(g *given) { g.manifest.Package = "other" }, state: events.Rejected, reason: events.ManifestMismatch},
		"a manifest of another version":            {change: func(g *given) { g.manifest.Version = "2" }, state: events.Rejected, reason: events.ManifestMismatch},
		"a program that the manifest has not":      {change: func(g *given) { g.order.Program = "remove" }, state: events.Rejected, reason: events.ManifestMismatch},
		"another run mode than the manifest's":     {change: func(g *given) { g.order.Run = events.RunUser }, state: events.Rejected, reason: events.ManifestMismatch},
		"signatures of another manifest":           {change: func(g *given) { g.blob = transplanted(t, g.manifest, another) }, state: events.Rejected, reason: events.ManifestMismatch},
		"a blob that is not the one that is named": {change: func(g *given) { g.order.Manifest = events.DigestOf([]byte("another")) }, state: events.Failed, reason: events.ContentMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			if c.trust != nil {
				m.Trust = trusting(c.trust)
			}
			var change []func(*given)
			if c.change != nil {
				change = append(change, c.change)
			}
			job := m.offer(change...)
			if state, reason := m.until(job, "decide"); state != c.state || reason != c.reason {
				t.Errorf("ended %s (%s), want %s (%s)", state, reason, c.state, c.reason)
			}
		})
	}
}

// transplanted puts the signatures of a manifest onto another one.
func transplanted(t *testing.T, of events.Manifest, change func(*given)) func([]byte) []byte {
	return func(envelope []byte) []byte {
		g := given{manifest: of}
		change(&g)
		other, err := manifest.Seal(g.manifest)
		if err != nil {
			t.Fatal(err)
		}
		_, signatures, _ := bytes.Cut(envelope, []byte(`"signatures":`))
		payload, _, _ := bytes.Cut(other, []byte(`"signatures":`))
		return append(append(payload, `"signatures":`...), signatures...)
	}
}

func TestWhatANewKeySignedIsNotRefusedBecauseItCameBeforeTheBundle(t *testing.T) {
	newer := func(b *trust.Bundle) {
		b.Version++
		b.Keys, b.Publishers = append(b.Keys, public("zoe")), append(b.Publishers, public("zoe"))
	}
	away := errors.New("nobody answers")
	for name, c := range map[string]struct {
		deployers, publishers []string
		change                func(*given)
		had, there            func(*trust.Bundle) // what the machine has, and what there is; nil: the first
		failing               error
		asked                 int
		state                 events.State
		reason                events.Reason
		says                  string
	}{
		"old keys":                               {there: newer},
		"a new deployer's order":                 {deployers: []string{"zoe"}, there: newer, asked: 1},
		"a new publisher's manifest":             {publishers: []string{"zoe"}, there: newer, asked: 1},
		"both":                                   {deployers: []string{"zoe"}, publishers: []string{"zoe"}, there: newer, asked: 1},
		"fewer signatures are needed by now":     {had: func(b *trust.Bundle) { b.Threshold = 2 }, there: newer, asked: 1},
		"a stranger's, and nothing is newer":     {deployers: []string{"mallory"}, asked: 1, state: events.Rejected, reason: events.OrderUnknownKey},
		"a stranger's, and something is newer":   {deployers: []string{"mallory"}, there: newer, asked: 1, state: events.Rejected, reason: events.OrderUnknownKey},
		"nobody says whether something is newer": {deployers: []string{"zoe"}, failing: away, asked: 1, state: events.Rejected, reason: events.OrderUnknownKey, says: "by trust bundle version 1; whether there is a newer one could not be asked"},
		"no keys would mend it":                  {change: func(g *given) { g.order.Fleet = "other" }, there: newer, state: events.Rejected, reason: events.OrderOtherFleet},
	} {
		t.Run(name, func(t *testing.T) {
			m, asked := newMachine(t), 0
			if c.had != nil {
				m.Trust = trusting(c.had)
			}
			m.askTrust = func(context.Context) error {
				if asked++; c.there != nil {
					m.Trust = trusting(c.there)
				}
				return c.failing
			}
			job := m.offer(func(g *given) {
				if c.deployers != nil {
					g.deployer = c.deployers
				}
				if c.publishers != nil {
					g.publishers = c.publishers
				}
				if c.change != nil {
					c.change(g)
				}
			})
			err := job.verify(t.Context())
			if err == nil {
				err = job.decide(t.Context())
			}
			var e ending
			if err != nil {
				e = *asEnding(err)
			}
			if e.state != c.state || e.reason != c.reason || !strings.Contains(e.detail.explanation, c.says) || asked != c.asked {
				t.Errorf("ended %s (%s): %s, asked %d times; want %s (%s), %d", e.state, e.reason, e.detail.explanation, asked, c.state, c.reason, c.asked)
			}
		})
	}
}

func TestWhatChangesBeforeTheStartStopsTheJob(t *testing.T) {
	for name, c := range map[string]struct {
		deployers, publishers []string
		target                string
		meanwhile             func(*machine, *task)
		state                 events.State
		reason                events.Reason
	}{
		"nothing":                      {meanwhile: func(*machine, *task) {}},
		"another's key":                {deployers: []string{"bob"}, publishers: []string{"pat"}, meanwhile: func(m *machine, _ *task) { m.Trust = trusting(revoked("ada")) }},
		"the deployer's key":           {publishers: []string{"pat"}, meanwhile: func(m *machine, _ *task) { m.Trust = trusting(revoked("ada")) }, state: events.Rejected, reason: events.OrderRevokedKey},
		"one of two deployers' keys":   {deployers: []string{"ada", "bob"}, publishers: []string{"pat"}, meanwhile: func(m *machine, _ *task) { m.Trust = trusting(revoked("ada")) }},
		"the publisher's key":          {deployers: []string{"bob"}, meanwhile: func(m *machine, _ *task) { m.Trust = trusting(revoked("pam")) }, state: events.Rejected, reason: events.ManifestUnsigned},
		"more signatures are needed":   {meanwhile: func(m *machine, _ *task) { m.Trust.Threshold = 2 }, state: events.Rejected, reason: events.OrderUnsigned},
		"the order's validity is over": {meanwhile: func(m *machine, _ *task) { m.ahead = 25 * time.Hour }, state: events.Rejected, reason: events.OrderExpired},
		"a newer revision was seen":    {meanwhile: func(m *machine, _ *task) { m.seen(2, "true") }, state: events.Rejected, reason: events.OrderSerialOld},
		"a newer revision was seen that is not meant for this machine": {meanwhile: func(m *machine, _ *task) { m.seen(2, "false") }, state: events.Rejected, reason: events.OrderSerialOld},
		"other facts that are in the target too":                       {target: `agent.os == "linux"`, meanwhile: func(m *machine, _ *task) { m.facts.Site = "oslo" }},
		"facts that are not in the target":                             {target: `agent.os == "linux"`, meanwhile: func(m *machine, _ *task) { m.facts.OS = "windows" }, state: events.Rejected, reason: events.NotTargeted},
		"another client kind":                                          {meanwhile: func(m *machine, _ *task) { m.facts.ClientKind = events.Legacy }, state: events.Rejected, reason: events.ContextUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			job := m.offer(func(g *given) {
				if c.deployers != nil {
					g.deployer = c.deployers
				}
				if c.publishers != nil {
					g.publishers = c.publishers
				}
				if c.target != "" {
					g.order.Expression = c.target
				}
			})
			if state, reason := m.until(job, "decide"); state != "" {
				t.Fatalf("before: %s (%s)", state, reason)
			}
			c.meanwhile(m, job)
			err := job.verifyAgain(t.Context())
			if c.state == "" {
				if err != nil {
					t.Errorf("it was stopped: %v", err)
				}
				return
			}
			if e := asEnding(err); err == nil || e.state != c.state || e.reason != c.reason {
				t.Errorf("%v, want %s (%s)", err, c.state, c.reason)
			}
		})
	}
}

func TestTheLastLookComesRightBeforeTheRun(t *testing.T) {
	var names []string
	for _, s := range stages() {
		names = append(names, s.name)
	}
	if got := strings.Join(names, ", "); !strings.Contains(got, "wait, verify again, run") {
		t.Errorf("the stages are %s", got)
	}
}

func TestAClockThatIsBehindWhatWasSignedIsWaitedFor(t *testing.T) {
	const hour = time.Hour
	for name, c := range map[string]struct {
		seen, bundle time.Duration // when the newest order seen and the bundle were issued, from now; 0: none
		issued       time.Duration // of the order
		wait         time.Duration // until it is verified
	}{
		"nothing was seen":                       {issued: -hour},
		"an order was seen before":               {seen: -hour, issued: -2 * hour},
		"the clock is behind within tolerance":   {seen: 4 * time.Minute, bundle: 4 * time.Minute, issued: -hour},
		"the clock was set back":                 {seen: hour, issued: -hour, wait: 55 * time.Minute},
		"the clock is behind the trust bundle":   {bundle: 2 * hour, issued: -hour, wait: 115 * time.Minute},
		"the clock is behind the order":          {issued: hour, wait: 55 * time.Minute},
		"the clock is behind the order the most": {seen: hour, bundle: hour, issued: 3 * hour, wait: 175 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				start := time.Now()
				if c.seen != 0 {
					if err := m.journal.RaiseClock(start.Add(c.seen)); err != nil {
						t.Fatal(err)
					}
				}
				if c.bundle != 0 {
					m.Trust.Issued = start.Add(c.bundle)
				}
				job := m.offer(func(g *given) { g.order.Issued, g.order.NotAfter = start.Add(c.issued), start.Add(24*hour) })
				done := make(chan error, 1)
				go func() { done <- job.verify(t.Context()) }()
				if c.wait > 0 {
					time.Sleep(c.wait - time.Minute) // of the bubble
					synctest.Wait()
					last := lastOf(t, m, job)
					if last.State != events.Waiting || last.WaitingFor != events.WaitClock || last.Transition != 1 || !strings.Contains(last.Explanation, "the clock here says") {
						t.Errorf("meanwhile: %s for %s, transition %d: %s", last.State, last.WaitingFor, last.Transition, last.Explanation)
					}
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(start).Truncate(time.Second); waited != c.wait { // the journal takes its milliseconds
					t.Errorf("it waited %s, want %s", waited, c.wait)
				}
				want := start.Add(c.issued)
				if c.seen != 0 {
					want = start.Add(max(c.issued, c.seen))
				}
				if newest, err := m.journal.Clock(); err != nil || !newest.Equal(want) {
					t.Errorf("the newest signed time seen is %s, want %s, %v", newest, want, err)
				}
			})
		})
	}
}

func lastOf(t *testing.T, m *machine, job *task) events.JobStatus {
	t.Helper()
	kept, ok, err := m.journal.Job(job.job.Offer.Job)
	if err != nil || !ok {
		t.Fatalf("the job is not in the journal: %v", err)
	}
	return kept.Last
}

func TestAClockThatWasSetBackBeforeTheStartIsWaitedForAndAllIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		job := m.offer()
		if state, reason := m.until(job, "decide"); state != "" {
			t.Fatalf("before: %s (%s)", state, reason)
		}
		job.slots, job.holdsSlot = job.slotNames(), true
		if free, _ := m.slots.take(job.slots...); !free {
			t.Fatal("no slot")
		}
		m.ahead = -time.Hour
		if err := job.verifyAgain(t.Context()); !errors.Is(err, errNextAttempt) {
			t.Errorf("it did not begin again: %v", err)
		}
		if last := lastOf(t, m, job); last.State != events.Waiting || last.WaitingFor != events.WaitClock {
			t.Errorf("it is %s for %s", last.State, last.WaitingFor)
		}
		if free, _ := m.slots.take(job.slots...); !free {
			t.Error("it kept others from running meanwhile")
		}
	})
}

func TestAnOrderFromTheFutureStopsNoOther(t *testing.T) {
	m := newMachine(t)
	mistaken := m.offer(func(g *given) {
		g.order.Issued, g.order.NotAfter = m.Clock().Add(9000*time.Hour), m.Clock().Add(10_000*time.Hour)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := mistaken.verify(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it did not wait: %v", err)
	}
	if state, reason := m.until(m.offer(), "decide"); state != "" {
		t.Errorf("another one ended %s (%s)", state, reason)
	}
}
