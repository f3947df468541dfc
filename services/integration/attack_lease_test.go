package integration

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/lease"
)

// borrower is an agent's identity in wrong hands: whoever has it says what it likes, and cannot be told from the agent.
type borrower struct {
	story
	*enrol.Keeper
	bus *bus.Bus
}

func (s story) borrower(t *testing.T) borrower {
	t.Helper()
	keeper, b := s.impersonate(t)
	return borrower{s, keeper, b}
}

// wish is a request for a lease, with the key that opens its answer.
type wish struct {
	events.LeaseStatement
	key     *lease.Key
	request events.LeaseRequest
}

// wishes signs a request to read a resource for a job, after it was changed.
func (b borrower) wishes(t *testing.T, job events.JobStatus, resource string, change func(*events.LeaseStatement)) wish {
	t.Helper()
	key, err := lease.NewKey()
	must(t, err)
	w := wish{key: key, LeaseStatement: events.LeaseStatement{Agent: b.ID(), Job: job.Job, Attempt: job.Attempt, Order: job.Order, Kind: events.NetworkAccess,
		Resource: resource, Purpose: events.LeaseToRead, Key: key.Public(), Nonce: rand.Text(), At: time.Now().UTC()}}
	if change != nil {
		change(&w.LeaseStatement)
	}
	w.request, err = lease.Sign(w.LeaseStatement, b.orderOf(t, job.Deployment), b.Sign)
	must(t, err)
	return w
}

// sends a request in the identity's own name, and gives the answer.
func (b borrower) sends(t *testing.T, w wish) events.LeaseAnswer {
	t.Helper()
	answer, err := bus.Request(t.Context(), b.bus, b.ID(), events.CredentialLease, w.request)
	must(t, err)
	return answer
}

// wantDenied makes sure that a request is refused with these words, and that this is told as what this identity did.
func (b borrower) wantDenied(t *testing.T, w wish, words string) {
	t.Helper()
	answer := b.sends(t, w)
	if !answer.Denied || answer.Grant != nil || answer.Reason != events.CredentialDenied || !strings.Contains(answer.Why, words) {
		t.Fatalf("answered %s, want a denial with %q", compact(answer), words)
	}
	await(t, b.told, "that this was denied: "+words, func(name string) bool { return name == events.LeaseDenied.Name }, func(list []events.LeaseNotice) (none struct{}, ok bool) {
		return none, slices.ContainsFunc(list, func(n events.LeaseNotice) bool {
			return n.Agent == b.ID() && n.Job == w.Job && n.Resource == w.Resource && n.Reason == answer.Reason && n.Why == answer.Why && n.Lease == ""
		})
	})
}

// granted is a request that is the agent's right, and its answer.
func (b borrower) granted(t *testing.T, job events.JobStatus, resource string) (wish, events.LeaseGrant) {
	t.Helper()
	w := b.wishes(t, job, resource, nil)
	answer := b.sends(t, w)
	if answer.Grant == nil {
		t.Fatalf("what is the agent's right is answered %s", compact(answer))
	}
	return w, *answer.Grant
}

// TestWhoeverStealsALeaseGetsNothing has a thief, who has all of one agent's means, try to get at an account by the jobs
// of another agent, and by its own. Who may say and hear what is shown by [TestWhatAnAgentMayNotSayOrHear]; every other way
// in which a request can be wrong by the credential service's own tests: TestLeasesThatAreDenied, TestReadsThatAreDenied,
// TestNobodyElseTakesPartInATest and TestOnlyTheWordOfWhoeverHoldsTheLeaseCounts.
func TestWhoeverStealsALeaseGetsNothing(t *testing.T) {
	const secret = "not-to-be-stolen"
	o := newOutside(t, secret)
	o.files.Write(software, "attacked/file", []byte("what is referred to"))
	resource := o.files.Address(software, "attacked")
	o.publishSpec("attacked", "programs:\n  run: {command: [visit.sh, attacked], run: administrative, references: [{url: \""+resource+"\", optional: true}]}\n", "visit.sh")
	var (
		jobs []events.JobStatus
		are  []borrower
		end  []func()
	)
	for _, name := range []string{"victim", "thief"} {
		m := o.newMachine(name)
		defer explain(t, m)
		s := outsideStory{story{o.site, m}, o}
		end = append(end, hold(t, m, "attacked"))
		job := s.want(t, s.deployOf(t, m, "attacked", "run"), events.Running)
		jobs, are = append(jobs, job), append(are, s.borrower(t))
	}
	victim, thief := are[0], are[1]
	var (
		asked  wish
		answer events.LeaseGrant
	)
	t.Run("what is an agent's right is lent", func(t *testing.T) {
		asked, answer = victim.granted(t, jobs[0], resource)
		got, err := asked.key.Open(asked.LeaseStatement, answer, time.Now())
		if err != nil || string(got) != secret+"-reader" || answer.Account != readerUser {
			t.Errorf("lent was account %s, %v", answer.Account, err)
		}
		thief.granted(t, jobs[1], resource)
	})
	if t.Failed() {
		return
	}
	for name, attack := range map[string]func(t *testing.T){
		"for another agent's job": func(t *testing.T) {
			thief.wantDenied(t, thief.wishes(t, jobs[0], resource, nil), "is not one of deployment")
		},
		"for another agent's job by its own order": func(t *testing.T) {
			thief.wantDenied(t, thief.wishes(t, jobs[1], resource, func(st *events.LeaseStatement) { st.Job = jobs[0].Job }), "is not one of deployment")
		},
		"in another agent's name": func(t *testing.T) {
			thief.wantDenied(t, thief.wishes(t, jobs[0], resource, func(st *events.LeaseStatement) { st.Agent = victim.ID() }), "speaks of agent")
		},
		"for what the order does not name": func(t *testing.T) {
			for _, other := range []string{o.files.Address(software, ""), o.files.Address(software, "used"), o.files.Address(private, "")} {
				thief.wantDenied(t, thief.wishes(t, jobs[1], other, nil), "the signed order does not name it")
			}
		},
		"by what the victim asked":                func(t *testing.T) { thief.wantDenied(t, asked, "not signed by the agent's enrolled key") },
		"by what was asked before, as the victim": func(t *testing.T) { victim.wantDenied(t, asked, "sent again") },
		"by the answer to the victim": func(t *testing.T) {
			w := thief.wishes(t, jobs[0], resource, func(st *events.LeaseStatement) {
				st.Agent, st.Nonce, st.At = victim.ID(), asked.Nonce, asked.At // all but the key
			})
			wantClosed(t, w.key, asked.LeaseStatement, answer, time.Now(), "sealed for another request")
			wantClosed(t, w.key, w.LeaseStatement, answer, time.Now(), "sealed for another request")
			other := answer
			other.Resource = o.files.Address(software, "")
			st := asked.LeaseStatement
			st.Resource = other.Resource
			wantClosed(t, asked.key, st, other, time.Now(), "sealed for another request")
		},
		"by an answer after its time": func(t *testing.T) {
			wantClosed(t, asked.key, asked.LeaseStatement, answer, answer.Expires, "expired")
			longer := answer
			longer.Expires = longer.Expires.Add(time.Hour)
			wantClosed(t, asked.key, asked.LeaseStatement, longer, answer.Expires, "sealed for another request")
		},
	} {
		t.Run(name, attack)
	}
	t.Run("for a job that has ended", func(t *testing.T) {
		end[0]()
		victim.want(t, jobs[0].Deployment, events.Succeeded)
		victim.wantDenied(t, victim.wishes(t, jobs[0], resource, nil), "has ended")
	})
	t.Run("what is withdrawn is told to its holder alone", func(t *testing.T) { withdrawn(t, victim, thief, jobs[1], resource) })
	list, _ := read[events.LeaseNotice](t, o.told, func(name string) bool { return name == events.CredentialLeased.Name })
	for i, b := range are {
		if slices.ContainsFunc(list, func(n events.LeaseNotice) bool {
			return n.Agent == b.ID() && (n.Job != jobs[i].Job || n.Resource != resource)
		}) {
			t.Errorf("lent to %s was more than is its right: %s", b.m.Name, compact(list))
		}
	}
}

// wantClosed makes sure that a sealed answer gives nothing.
func wantClosed(t *testing.T, key *lease.Key, st events.LeaseStatement, g events.LeaseGrant, now time.Time, words string) {
	t.Helper()
	if got, err := key.Open(st, g, now); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("it opens to %d bytes, %v; want no word but %q", len(got), err, words)
	}
}

// withdrawn has an administrator take a lease back: whoever holds it hears of it, an agent that listens for it elsewhere
// does not, and its holder does not get it again for a while.
func withdrawn(t *testing.T, other, holder borrower, job events.JobStatus, resource string) {
	hears := func(b borrower) *nats.Subscription {
		t.Helper()
		sub, err := b.bus.Conn().SubscribeSync(events.LeaseWithdrawn.Subject(holder.ID()))
		must(t, err)
		must(t, b.bus.Conn().Flush())
		return sub
	}
	own, others := hears(holder), hears(other)
	holder.cli(t, "lease", "revoke", "--job", job.Job, "--yes")
	if msg, err := own.NextMsg(10 * time.Second); err != nil || !strings.Contains(string(msg.Data), holder.ID()) {
		t.Errorf("its holder heard %v, %v", msg, err)
	}
	must(t, other.bus.Conn().Flush()) // whose answer comes after whatever was told before
	if n, _, err := others.Pending(); n != 0 || err != nil {
		t.Errorf("another agent heard of it %d times, %v", n, err)
	}
	holder.wantDenied(t, holder.wishes(t, job, resource, nil), "revoked this lease")
}
