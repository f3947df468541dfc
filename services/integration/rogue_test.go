package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// rogue is a service that was taken over: it has all the rights of the real one, which does not run, and
// says what it likes.
type rogue struct {
	f    *fleet
	name string
	*bus.Bus
}

// takeOver ends a service and takes its place, answering these requests.
func (f *fleet) takeOver(t *testing.T, name string, answers ...bus.Endpoint) rogue {
	t.Helper()
	if f.services[name] != nil {
		f.stopService(name)
	}
	r := rogue{f, name, f.broker.Bus(t, access.Service(name), name)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, name, "6.6.6", answers...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("rogue %s: %v", name, err)
		}
	})
	return r
}

// rogueOrders is an execution service that offers what it likes, and answers with what it likes.
type rogueOrders struct {
	rogue
	mu      sync.Mutex
	answers map[string]events.OrderAnswer
}

func (f *fleet) rogueExecution(t *testing.T) *rogueOrders {
	t.Helper()
	r := &rogueOrders{answers: map[string]events.OrderAnswer{}}
	r.rogue = f.takeOver(t, "execution",
		bus.Answer(events.ExecutionOrder, func(_ context.Context, _ string, q events.OrderRequest) (events.OrderAnswer, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			answer, ok := r.answers[q.Order]
			if !ok {
				return answer, bus.NotFound(errors.New("no such order"))
			}
			return answer, nil
		}),
		bus.Answer(events.ExecutionSync, func(context.Context, string, events.SyncRequest) (events.SyncAnswer, error) {
			return events.SyncAnswer{Later: events.Duration(time.Hour)}, nil
		}))
	return r
}

// offer offers a job by an order, whose bytes come as answer says.
func (r *rogueOrders) offer(t *testing.T, m *machine, deployment string, revision uint64, answer events.OrderAnswer) {
	t.Helper()
	_, digest, err := order.Open(answer.Envelope)
	if err != nil {
		digest = events.DigestOf(answer.Envelope) // nobody can say better
	}
	r.mu.Lock()
	r.answers[digest] = answer
	r.mu.Unlock()
	offer := events.JobOffer{Format: events.OfferFormat, Agent: m.id, Job: events.JobID(deployment, revision, m.id, 0, ""), Deployment: deployment, Revision: revision, Order: digest, Attempt: 1}
	_, err = bus.Publish(t.Context(), r.Bus, events.JobOffered, events.Event[events.JobOffer]{ID: events.DeriveID("rogue", deployment, m.id, digest), Subject: m.id, Time: time.Now(), Data: offer})
	must(t, err)
}

// end waits for the last word of a job.
func (f *fleet) end(t *testing.T, deployment string, revision uint64, m *machine) events.JobStatus {
	t.Helper()
	var last events.JobStatus
	eventually(t, "the job of "+deployment+" ends", func() bool {
		for _, s := range f.statuses(deployment, m) {
			if s.Revision == revision && s.State.Terminal() {
				last = s
			}
		}
		return last.State.Terminal()
	})
	return last
}

func TestAnAgentObeysNoRogueService(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("seen", p, func(o *order.Order) { o.Revision = 5 })
	f.want("seen", m, events.Succeeded)
	revoked, stranger := newKey(t, 8), newKey(t, 9)
	next := f.trust
	next.Version++
	next.Issued = time.Now().UTC().Truncate(time.Second)
	next.Revoked = []trust.RevokedKey{{PublicKey: revoked.Public().Named("left"), At: next.Issued, Why: "left"}}
	f.setTrust(next, f.roots...)
	eventually(t, "the agent follows", func() bool {
		view := mustAsk(f, events.AgentList, events.AgentQuery{Name: m.id})
		return len(view.Agents) == 1 && view.Agents[0].Facts.Trust == 2
	})
	r := f.rogueExecution(t)
	plain := func(name string, change func(*order.Order), keys ...sign.Signer) events.OrderAnswer {
		now := time.Now().UTC().Truncate(time.Second)
		o := order.Order{Fleet: f.trust.Fleet, Deployment: name, Revision: 1, Package: "probe", Version: "1.0", Manifest: p.Digest, Program: "install", Run: events.RunAdministrative,
			Collection: "everyone", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunAlways, Issued: now, NotAfter: now.Add(time.Hour)}
		if change != nil {
			change(&o)
		}
		envelope, err := order.Sign(o, keys...)
		must(t, err)
		return events.OrderAnswer{Envelope: envelope}
	}
	with := func(a events.OrderAnswer, include ...string) events.OrderAnswer { a.Include = include; return a }

	for name, c := range map[string]struct {
		answer   events.OrderAnswer
		revision uint64
		reason   events.Reason
	}{
		"unknown":    {plain("unknown", nil, stranger), 1, events.OrderUnknownKey},
		"revoked":    {plain("revoked", nil, revoked), 1, events.OrderRevokedKey},
		"unsigned":   {plain("unsigned", nil), 1, events.OrderUnsigned},
		"forged":     {events.OrderAnswer{Envelope: forge(t, plain("forged", nil, f.key).Envelope, func(o map[string]any) { o["program"] = "remove" })}, 1, events.OrderAltered},
		"truncated":  {events.OrderAnswer{Envelope: plain("truncated", nil, f.key).Envelope[:200]}, 1, events.OrderMalformed},
		"expired":    {plain("expired", func(o *order.Order) { o.Issued, o.NotAfter = o.Issued.Add(-2*time.Hour), o.Issued.Add(-time.Hour) }, f.key), 1, events.OrderExpired},
		"elsewhere":  {plain("elsewhere", func(o *order.Order) { o.Fleet = "elsewhere" }, f.key), 1, events.OrderOtherFleet},
		"seen":       {plain("seen", func(o *order.Order) { o.Revision = 4 }, f.key), 4, events.OrderSerialOld},
		"relabelled": {plain("seen", func(o *order.Order) { o.Revision = 6 }, f.key), 1, events.OrderAltered},
		"not-meant":  {plain("not-meant", func(o *order.Order) { o.Expression = `agent.os == "plan9"` }, f.key), 1, events.NotTargeted},
		"retargeted": {with(plain("retargeted", func(o *order.Order) {
			o.Expression, o.IncludeDigest = "", order.ListDigest([]string{"aaaaaaaa"})
		}, f.key), m.id), 1, events.OrderAltered},
		"excluded": {plain("excluded", func(o *order.Order) { o.ExcludeDigest = order.ListDigest([]string{m.id}) }, f.key), 1, events.OrderAltered},
	} {
		t.Run(name, func(t *testing.T) {
			r.offer(t, m, name, c.revision, c.answer)
			if s := f.end(t, name, c.revision, m); s.State != events.Rejected || s.Reason != c.reason {
				t.Errorf("it ends %s (%s: %s), want %s", s.State, s.Reason, s.Explanation, c.reason)
			}
		})
	}
	t.Run("from the future", func(t *testing.T) {
		r.offer(t, m, "future", 1, plain("future", func(o *order.Order) { o.Issued, o.NotAfter = o.Issued.Add(time.Hour), o.Issued.Add(2*time.Hour) }, f.key))
		eventually(t, "it waits for its clock", func() bool {
			s := f.statuses("future", m)
			return len(s) > 0 && s[len(s)-1].State == events.Waiting && s[len(s)-1].WaitingFor == events.WaitClock
		})
	})
	if ran := m.ran(); len(ran) != 1 {
		t.Errorf("it ran %v", ran)
	}
}

// TestARogueSchedulingServiceReachesNobodyWhomNoOrderMeans: it may hasten or withhold, and no more.
func TestARogueSchedulingServiceReachesNobodyWhomNoOrderMeans(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	meant, other := f.machine("ws1"), f.machine("ws2")
	p := f.publish("1.0", payload, "")
	f.everyone(2)
	request := f.sign("narrow", p, func(o *order.Order) { o.Expression = fmt.Sprintf("agent.hostname == %q", "ws1") })
	o, digest, err := order.Open(request.Envelope)
	must(t, err)
	r := f.takeOver(t, "scheduling")
	notice := events.DeploymentNotice{Deployment: o.Deployment, Revision: o.Revision, Order: digest, Package: o.Package, Version: o.Version, Program: o.Program, Collection: o.Collection, By: "admin", At: time.Now().UTC()}
	_, err = bus.Publish(t.Context(), r.Bus, events.DeploymentCreated, events.Event[events.DeploymentOrder]{ID: "rogue-created", Subject: o.Deployment, Time: time.Now(),
		Data: events.DeploymentOrder{DeploymentNotice: notice, Envelope: request.Envelope}})
	must(t, err)
	_, err = bus.Publish(t.Context(), r.Bus, events.DeploymentReleased, events.Event[events.Release]{ID: "rogue-released", Subject: o.Deployment, Time: time.Now(),
		Data: events.Release{Deployment: o.Deployment, Revision: o.Revision, Order: digest, Wave: "1", Agents: []string{meant.id, other.id}}})
	must(t, err)
	f.want("narrow", meant, events.Succeeded)
	if row := f.want("narrow", other, events.Rejected); row.Reason != events.NotTargeted {
		t.Errorf("it is rejected as %s", row.Reason)
	}
	if ran := other.ran(); ran != nil {
		t.Errorf("it ran %v", ran)
	}
}

// TestARogueBrokerThatSwapsContent answers in the place of content, and serves other bytes.
func TestARogueBrokerThatSwapsContent(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"payloadType":"application/vnd.chandler.manifest+json","payload":"e30=","signatures":[]}`))
	}))
	t.Cleanup(evil.Close)
	f.deploy("swapped", p, func(o *order.Order) { // the content is asked for once the real service is gone
		soon := time.Now().Add(3 * time.Second).UTC().Truncate(time.Second)
		o.Available = new(calendar.At(soon))
	})
	f.takeOver(t, "content", bus.Answer(events.ContentLocate, func(_ context.Context, _ string, q events.LocateRequest) (events.LocateAnswer, error) {
		answer := events.LocateAnswer{Blobs: map[string][]string{}}
		for _, blob := range q.Blobs {
			answer.Blobs[blob] = []string{evil.URL + "/" + blob}
		}
		return answer, nil
	}))
	eventually(t, "the agent notices", func() bool {
		row, ok := f.row("swapped", m)
		return ok && row.Reason == events.ContentMismatch
	})
	if ran := m.ran(); ran != nil {
		t.Errorf("it ran %v", ran)
	}
}

// TestARogueEnrolmentServiceCannotHandOutItsOwnRoot has even the key that signs agents.
func TestARogueEnrolmentServiceCannotHandOutItsOwnRoot(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	l := &lightAgents{f: f, dir: t.TempDir(), tell: time.Now}
	a := l.add(t, 1, "ws1")
	token := parsedToken(t, f.token("office"))
	own := f.trust
	own.Roots = trust.Roots{Threshold: 1, Keys: []sign.PublicKey{newKey(t, 66).Public().Named("mine")}}
	bundle, err := trust.Sign(own, newKey(t, 66))
	must(t, err)
	f.takeOver(t, "credentials", bus.Answer(events.AgentEnrol, func(_ context.Context, agent string, r events.EnrolRequest) (events.EnrolAnswer, error) {
		s, err := statementOf(r)
		if err != nil {
			return events.EnrolAnswer{}, err
		}
		jwt, err := access.Mint(access.Agent, f.broker.Keys.Roles[access.Agent], f.broker.Account(access.Agents), access.User{Name: agent, Key: s.Key, Expires: time.Now().Add(time.Hour)})
		return events.EnrolAnswer{Nonce: s.Nonce, Agent: agent, JWT: jwt, Expires: time.Now().Add(time.Hour), Bundles: [][]byte{bundle}}, err
	}))
	eventually(t, "the rogue answers", func() bool {
		err = a.Enrol(t.Context(), token, events.Facts{ID: a.ID(), Hostname: "ws1"})
		return !errors.Is(err, bus.ErrUnavailable)
	})
	if err == nil || a.Enrolled() {
		t.Fatalf("it enrolled: %v", err)
	}
	must(t, contains(err.Error(), "another root than the token names"))
	k, err := enrol.New(enrol.Options{Dir: filepath.Join(l.dir, "1")})
	if err != nil || k.Enrolled() {
		t.Errorf("something was kept of it: %v", err)
	}
	eventstest.ExpectExactly(t, f.owner, events.AgentEnrolled, nil, 0)
}
