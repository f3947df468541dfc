package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// attacker is a client of the broker that has a right identity and means ill.
type attacker struct {
	*nats.Conn
	name    string
	key     string
	refused chan error // what the broker refused
}

func (f *fleet) attacker(t *testing.T, role access.Role, name string) attacker {
	t.Helper()
	user := f.broker.User(t, role, name)
	a := attacker{name: name, key: user.Key, refused: make(chan error, 64)}
	a.Conn = f.broker.Connect(t, role, name, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case a.refused <- err:
		default:
		}
	}))
	return a
}

// denied waits until the broker has refused what was just done.
func (a attacker) denied(t *testing.T, subject string) {
	t.Helper()
	must(t, a.Flush())
	select {
	case err := <-a.refused:
		if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(subject)) {
			t.Errorf("the broker refuses something else: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("the broker does not refuse %s", subject)
	}
}

// undenied asserts that the broker has refused nothing of what went before: the flush's answer comes after it.
func (a attacker) undenied(t *testing.T) {
	t.Helper()
	must(t, a.Flush())
	select {
	case err := <-a.refused:
		t.Errorf("the broker refuses: %v", err)
	default:
	}
}

func TestWhatAnAgentMayNotSayOrHear(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	own, other := f.broker.Agent(t), f.broker.Agent(t)
	a := f.attacker(t, access.Agent, own)
	admin := f.broker.User(t, access.Administrator, "admin").Key

	for name, subject := range map[string]string{
		"another agent's offers":             events.AgentInbox(other),
		"every agent's offers":               "chandler.agent.*.>",
		"another agent's answers":            "_INBOX." + other + ".>",
		"everybody's answers":                "_INBOX.>",
		"everything":                         ">",
		"every event":                        "chandler.event.>",
		"another agent's statuses":           "chandler.job.*." + other,
		"requests of administrators":         "chandler.rpc.>",
		"the broker's stand-ins for answers": "_R_.>",
		"what services are asked":            "$SRV.>",
		"deliveries to services":             "$JS.>",
		"another agent's tests of accounts":  events.AccountTestAsked.Subject(other),
		"every agent's tests of accounts":    events.AccountTestAsked.Subject("*"),
		"another agent's withdrawn leases":   events.LeaseWithdrawn.Subject(other),
		"what accounts are lent to others":   events.CredentialLeased.Subject(other),
	} {
		t.Run("hearing "+name, func(t *testing.T) {
			_, err := a.SubscribeSync(subject)
			must(t, err)
			a.denied(t, subject)
		})
	}
	for name, subject := range map[string]string{
		"another agent's status":              "chandler.job.succeeded." + other,
		"another agent's log":                 "chandler.log." + other,
		"another agent's facts":               events.AgentReported.Subject(other),
		"another agent's heartbeat":           events.Heartbeat.Subject(other),
		"a sync in another's name":            events.ExecutionSync.Subject("", other),
		"a lease in another's name":           events.CredentialLease.Subject("", other),
		"a test's answer in another's name":   events.AccountTestAnswer.Subject("", other),
		"a use of a lease in another's name":  events.CredentialUsed.Subject(other),
		"that an account was lent to it":      events.CredentialLeased.Subject(own),
		"that it was denied an account":       events.LeaseDenied.Subject(own),
		"a test of an account to itself":      events.AccountTestAsked.Subject(own),
		"a test of an account to another":     events.AccountTestAsked.Subject(other),
		"that another's lease is over":        events.LeaseWithdrawn.Subject(other),
		"the end of a lease":                  events.LeaseRevoke.Subject(admin, "admin"),
		"the list of leases as itself":        events.LeaseList.Subject(f.broker.User(t, access.Agent, own).Key, own),
		"a lease in its bucket":               "$KV." + events.BucketLeases + "." + own,
		"a renewal in another's name":         events.AgentRenew.Subject("", other),
		"an enrolment":                        events.AgentEnrol.Subject("", own),
		"an administrator's verb":             events.ExecutionStop.Subject(admin, "admin"),
		"an administrator's verb as itself":   events.ExecutionStop.Subject(f.broker.User(t, access.Agent, own).Key, own),
		"an offer to itself":                  events.OfferStored(own),
		"an offer to another":                 events.OfferStored(other),
		"what reaches another":                events.OfferRepublished(other),
		"a beacon":                            events.Beacon.Subject(""),
		"a trust announcement":                events.TrustAnnounced.Subject(""),
		"a release":                           events.DeploymentReleased.Subject("hello"),
		"an order":                            events.DeploymentCreated.Subject("hello"),
		"an audit record":                     events.AuditRecorded.Subject("scheduling"),
		"a timer":                             events.TimerSubject("scheduling", "x"),
		"a change of execution's state":       events.FoldSubject("0"),
		"a deployment in its bucket":          "$KV." + events.BucketDeployments + ".hello",
		"an identity in its bucket":           "$KV." + events.BucketEnrolments + ".agent." + own,
		"an acknowledgement for a service":    "$JS.ACK.STATUS.execution-0.1.1.1.1.1",
		"the list of streams":                 "$JS.API.STREAM.LIST",
		"a stream's description":              "$JS.API.STREAM.INFO.STATUS",
		"the end of a stream":                 "$JS.API.STREAM.DELETE.JOBS",
		"a consumer":                          "$JS.API.CONSUMER.CREATE.JOBS.mine.chandler.offer." + other,
		"another agent's newest offer":        "$JS.API.DIRECT.GET.JOBS." + events.OfferStored(other),
		"a read whose body names the subject": "$JS.API.DIRECT.GET.JOBS",
		"a value of a service's bucket":       "$JS.API.DIRECT.GET.KV_" + events.BucketAccounts + ".$KV." + events.BucketAccounts + ".corp",
		"an answer to somebody":               "_INBOX." + other + ".x",
		"a change of an account":              "$SYS.REQ.CLAIMS.UPDATE",
	} {
		t.Run("saying "+name, func(t *testing.T) {
			must(t, a.Publish(subject, []byte("{}")))
			a.denied(t, subject)
		})
	}
}

// TestAnswersNeverLeaveTheAskersAccount tries to make the broker say what the asker may not: whatever
// answers a request (an acknowledgement of the store, a message read directly, a service) is published to
// the reply subject that the asker chose.
func TestAnswersNeverLeaveTheAskersAccount(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("hello", p)
	f.want("hello", m, events.Succeeded)
	own := f.broker.Agent(t)
	a, viewer := f.attacker(t, access.Agent, own), f.attacker(t, access.Viewer, "vic")
	state := events.AgentInbox(m.id)
	heard, err := f.owner.Conn().SubscribeSync(state) // what reaches the other agent
	must(t, err)

	type way struct {
		who     attacker
		subject string
		body    []byte
	}
	ways := map[string]way{
		"the acknowledgement of a status": {a, "chandler.job.accepted." + own, []byte("{}")},
		"the newest offer, read directly": {a, "$JS.API.DIRECT.GET.JOBS." + events.OfferStored(own), nil},
		"the answer of a service":         {a, events.ExecutionSync.Subject("", own), []byte("{}")},
		"an event that a viewer reads":    {viewer, "$JS.API.DIRECT.GET.EVENTS", []byte(`{"seq":1,"next_by_subj":"chandler.event.>","batch":10}`)},
		"a list that a viewer asks for":   {viewer, events.CollectionList.Subject(viewer.key, "vic"), []byte("{}")},
	}
	targets := map[string]string{
		"the other agent's offers":      events.OfferStored(m.id),
		"what reaches the other agent":  events.OfferRepublished(m.id),
		"the events":                    events.DeploymentReleased.Subject("hello"),
		"a bucket":                      "$KV." + events.BucketDeployments + ".hello",
		"the state of execution":        events.FoldSubject("0"),
		"the timers":                    events.TimerSubject("scheduling", "x"),
		"an emptying of the events":     "$JS.API.STREAM.PURGE.EVENTS",
		"an end of the statuses":        "$JS.API.STREAM.DELETE.STATUS",
		"an administrator's request":    events.ExecutionStop.Subject(f.broker.User(t, access.Administrator, "admin").Key, "admin"),
		"a request of the other agent":  events.ExecutionSync.Subject("", m.id),
		"an acknowledgement of another": "$JS.ACK.STATUS.execution-0.1.1.1.1.1",
	}
	f.seedOffer(own) // there is something to read
	before := f.lastSequences()
	for what, w := range ways {
		for where, reply := range targets {
			t.Run(what+" into "+where, func(t *testing.T) {
				must(t, w.who.PublishRequest(w.subject, reply, w.body))
				if strings.HasPrefix(reply, "$JS.ACK.") { // the broker's own rule
					w.who.denied(t, reply)
					return
				}
				w.who.undenied(t)
			})
		}
	}
	// Each way still works for who asks rightly; what was asked before has been answered by then.
	for what, w := range ways {
		if w.who.name == own && strings.Contains(w.subject, ".job.") {
			continue // its acknowledgement is looked for below
		}
		if _, err := w.who.Request(w.subject, w.body, 10*time.Second); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	after := f.lastSequences()
	for stream, last := range before {
		if stream == events.StreamStatus { // the attacker's own statuses are stored, and dead letters for it
			last += uint64(len(targets)) - 1
		}
		if stream == events.StreamDeadLetter || stream == events.StreamFold {
			continue // of those statuses
		}
		if stream == events.StreamEvents { // services go on telling; what the broker answered is no event
			_, err := f.owner.Replay(t.Context(), stream, ">", last+1, func(m jetstream.Msg) error {
				_, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
				return err
			})
			if err != nil {
				t.Errorf("something was put among the events: %v", err)
			}
			continue
		}
		if after[stream] != last {
			t.Errorf("%s went from %d to %d", stream, last, after[stream])
		}
	}
	if msg, err := heard.NextMsg(100 * time.Millisecond); err == nil {
		t.Errorf("the other agent was sent %q on %s", msg.Data, msg.Subject)
	}
	f.deploy("again", p)
	f.want("again", m, events.Succeeded)
}

// seedOffer stores a message that only the owner of the account may, as an offer to an agent, with a body
// that the broker's own interface takes for an empty request.
func (f *fleet) seedOffer(agent string) {
	f.t.Helper()
	_, err := f.owner.JetStream().Publish(f.t.Context(), events.OfferStored(agent), []byte("{}"))
	must(f.t, err)
}

// lastSequences of every stream, buckets included.
func (f *fleet) lastSequences() map[string]uint64 {
	f.t.Helper()
	found := map[string]uint64{}
	streams := f.owner.JetStream().ListStreams(f.t.Context())
	for info := range streams.Info() {
		found[info.Config.Name] = info.State.LastSeq
	}
	must(f.t, streams.Err())
	return found
}

func TestWhatPeopleMayNotDo(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	p := f.publish("1.0", payload, "")
	mustAsk(f, events.CollectionSet, events.Collection{Name: "everyone", Expression: "true"})
	other := f.broker.User(t, access.Administrator, "admin")
	f.broker.Integrator(t, "siem", "job.failed")

	for _, c := range []struct {
		role    access.Role
		name    string
		refused map[string]events.CallDeclaration
		says    []string
		hears   []string
	}{
		{access.Viewer, "vic", map[string]events.CallDeclaration{
			"deploys": events.DeploymentCreate.CallDeclaration, "signs": events.DeploymentSign.CallDeclaration, "stops": events.ExecutionStop.CallDeclaration,
			"freezes": events.ExecutionFreeze.CallDeclaration, "publishes": events.ContentCommit.CallDeclaration, "changes a collection": events.CollectionSet.CallDeclaration,
			"makes a token": events.TokenCreate.CallDeclaration, "withdraws leases": events.LeaseRevoke.CallDeclaration, "tests an account": events.AccountTest.CallDeclaration,
			"rotates an account": events.AccountRotate.CallDeclaration, "encrypts secrets anew": events.AccountRekey.CallDeclaration,
		}, []string{events.DeploymentReleased.Subject("x"), "chandler.job.succeeded.aaaaaaaa", "$JS.API.CONSUMER.CREATE.EVENTS.x", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.DELETE.EVENTS", "$KV." + events.BucketTrust + ".1"},
			[]string{"_INBOX.>", "_INBOX.admin.>", "chandler.rpc.>", "chandler.agent.>", ">"}},
		{access.Deployer, "dora", map[string]events.CallDeclaration{
			"sets an account": events.AccountSetCall.CallDeclaration, "removes an account": events.AccountRemove.CallDeclaration, "changes trust": events.TrustSet.CallDeclaration,
			"makes a token": events.TokenCreate.CallDeclaration, "adds a user": events.UserAdd.CallDeclaration, "approves": events.AgentApprove.CallDeclaration,
			"revokes": events.AgentRevoke.CallDeclaration, "sets a kind": events.AgentSetKind.CallDeclaration,
		}, []string{events.DeploymentReleased.Subject("x"), "$JS.API.CONSUMER.CREATE.EVENTS.x", "$KV." + events.BucketDeployments + ".x"}, []string{"chandler.rpc.>", "chandler.agent.>"}},
		{access.Integrator, "siem", map[string]events.CallDeclaration{
			"lists": events.DeploymentList.CallDeclaration, "deploys": events.DeploymentCreate.CallDeclaration,
		}, []string{"chandler.job.failed.aaaaaaaa", "$JS.API.DIRECT.GET.EVENTS"}, []string{"chandler.job.>", "chandler.event.>", events.JobSucceeded.Subject("*")}},
		{access.Administrator, "eve", nil,
			[]string{events.DeploymentReleased.Subject("x"), "chandler.job.succeeded.aaaaaaaa", events.OfferStored("aaaaaaaa"), "$KV." + events.BucketTrust + ".1", events.DeploymentList.Subject(other.Key, "admin")},
			[]string{"_INBOX.>", "_INBOX.admin.>", "chandler.rpc.>"}},
	} {
		a := f.attacker(t, c.role, c.name)
		for what, call := range c.refused {
			t.Run(fmt.Sprintf("a %s %s", c.role, what), func(t *testing.T) {
				subject := call.Subject(a.key, c.name)
				must(t, a.Publish(subject, []byte("{}")))
				a.denied(t, subject)
			})
		}
		for _, subject := range c.says {
			t.Run(fmt.Sprintf("a %s says %s", c.role, subject), func(t *testing.T) {
				must(t, a.Publish(subject, []byte("{}")))
				a.denied(t, subject)
			})
		}
		for _, subject := range c.hears {
			t.Run(fmt.Sprintf("a %s hears %s", c.role, subject), func(t *testing.T) {
				_, err := a.SubscribeSync(subject)
				must(t, err)
				a.denied(t, subject)
			})
		}
	}
	t.Run("a deployer deploys", func(t *testing.T) {
		b := f.broker.Bus(t, access.Deployer, "dora")
		if _, err := bus.Request(t.Context(), b, "dora", events.DeploymentCreate, f.sign("hers", p)); err != nil {
			t.Fatal(err)
		}
		audit := eventstest.Expect(t, f.owner, events.AuditRecorded, func(e events.Event[events.AuditRecord]) bool { return e.Data.By == "dora" }).Data
		if audit.Verb != "deployment_create" || audit.About != "hers" || audit.Result != "ok" || audit.Key != f.broker.User(t, access.Deployer, "dora").Key || audit.After == "" {
			t.Errorf("recorded: %+v", audit)
		}
	})
	t.Run("a viewer looks", func(t *testing.T) {
		b := f.broker.Bus(t, access.Viewer, "vic")
		all, err := bus.Request(t.Context(), b, "vic", events.DeploymentList, events.Nothing{})
		if err != nil || len(all.Deployments) != 1 {
			t.Fatalf("%d deployments, %v", len(all.Deployments), err)
		}
		read := 0
		must(t, b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamEvents, Filters: []string{"chandler.event.>"}}, func(jetstream.Msg) error { read++; return nil }))
		if read == 0 {
			t.Error("nothing can be read")
		}
	})
	t.Run("an integrator hears what it chose", func(t *testing.T) {
		a := f.attacker(t, access.Integrator, "siem")
		_, err := a.SubscribeSync(events.JobFailed.Subject("*"))
		must(t, err)
		a.undenied(t)
	})
}

func TestAServiceMaySayOnlyItsOwn(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for service, subjects := range map[string][]string{
		"scheduling":  {events.JobOffered.Subject("aaaaaaaa"), "chandler.job.succeeded.aaaaaaaa", events.TrustChanged.Subject("testfleet"), "$KV." + events.BucketAccounts + ".x", "$KV." + events.BucketEnrolments + ".x", events.AuditRecorded.Subject("credentials"), "$JS.API.STREAM.DELETE.EVENTS"},
		"content":     {events.DeploymentReleased.Subject("x"), "$KV." + events.BucketDeployments + ".x", "$JS.API.STREAM.PURGE.EVENTS", events.Beacon.Subject("")},
		"execution":   {events.DeploymentCreated.Subject("x"), "$KV." + events.BucketTrust + ".1", events.AgentApproved.Subject("aaaaaaaa"), "chandler.job.succeeded.aaaaaaaa", events.AccountTestAsked.Subject("aaaaaaaa"), events.LeaseWithdrawn.Subject("aaaaaaaa"), events.CredentialLeased.Subject("aaaaaaaa"), "$KV." + events.BucketLeases + ".x"},
		"credentials": {events.DeploymentCreated.Subject("x"), events.JobOffered.Subject("aaaaaaaa"), "$KV." + events.BucketOrders + ".x", "$JS.API.STREAM.CREATE.MINE", events.CredentialUsed.Subject("aaaaaaaa")},
	} {
		a := f.attacker(t, access.Service(service), service)
		for _, subject := range subjects {
			t.Run(service+" says "+subject, func(t *testing.T) {
				must(t, a.Publish(subject, []byte("{}")))
				a.denied(t, subject)
			})
		}
		t.Run(service+" hears what agents are offered", func(t *testing.T) {
			_, err := a.SubscribeSync("chandler.agent.>")
			must(t, err)
			a.denied(t, "chandler.agent.>")
		})
	}
}

func TestTheEnrolmentUserCanDoNothingElse(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	agent := f.broker.Agent(t)
	a := f.attacker(t, access.Enrolling, "enrolling")
	for _, subject := range []string{events.ExecutionSync.Subject("", agent), events.AgentRenew.Subject("", agent), "chandler.job.succeeded." + agent, "chandler.log." + agent,
		"$JS.API.INFO", "$JS.API.DIRECT.GET.JOBS." + events.OfferStored(agent), events.TokenCreate.Subject(a.key, "enrolling"), "_INBOX.enrol.x"} {
		t.Run("saying "+subject, func(t *testing.T) {
			must(t, a.Publish(subject, []byte("{}")))
			a.denied(t, subject)
		})
	}
	for _, subject := range []string{">", "chandler.>", events.AgentInbox(agent), "_INBOX.>", "_INBOX." + agent + ".>"} {
		t.Run("hearing "+subject, func(t *testing.T) {
			_, err := a.SubscribeSync(subject)
			must(t, err)
			a.denied(t, subject)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := a.RequestWithContext(ctx, events.AgentEnrol.Subject("", agent), []byte(`{"statement":"e30=","signature":""}`))
	if err != nil || !strings.Contains(string(answer.Data), string(events.RefusedProof)) {
		t.Errorf("a statement without proof is answered %s, %v", answer.Data, err)
	}
}
