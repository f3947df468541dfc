package access_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
)

// hub is a broker that takes leaf nodes.
type hub struct {
	*eventstest.SecureBroker
	leaves string // where, host:port
}

func newHub(t *testing.T) hub {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().(*net.TCPAddr)
	free.Close()
	return hub{eventstest.Secure(t, func(o *server.Options) {
		o.JetStreamDomain = access.Domain
		o.LeafNode.Host, o.LeafNode.Port = at.IP.String(), at.Port
	}), at.String()}
}

// thief has the credentials of a leaf node and keeps to none of its rules: it speaks the protocol by hand.
type thief struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func newThief(t *testing.T, b hub, a access.Account) *thief {
	t.Helper()
	seed, key, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := access.MintLeaf(a, b.Keys.Accounts[a], access.User{Name: "oslo", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", b.leaves)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(eventstest.Patience)); err != nil {
		t.Fatal(err)
	}
	th := &thief{t, conn, bufio.NewReader(conn)}
	info, _ := strings.CutPrefix(th.line(), "INFO ")
	var hello struct{ Nonce string }
	if err := json.Unmarshal([]byte(info), &hello); err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := pair.Sign([]byte(hello.Nonce))
	if err != nil {
		t.Fatal(err)
	}
	th.say(`CONNECT {"jwt":%q,"sig":%q,"server_id":"thief","name":"thief","headers":true}`, token, base64.RawURLEncoding.EncodeToString(sig))
	return th
}

func (th *thief) say(format string, args ...any) {
	_, _ = fmt.Fprintf(th.conn, format+"\r\n", args...) // the broker may have hung up: what it said first tells
}

// line is what the broker says next; empty when it has hung up.
func (th *thief) line() string {
	line, err := th.in.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSpace(line)
}

// until reads up to a line with this beginning, and gives all.
func (th *thief) until(beginning string) (lines []string) {
	for {
		line := th.line()
		lines = append(lines, line)
		if line == "" || strings.HasPrefix(line, beginning) {
			return lines
		}
	}
}

func TestTheHubHangsUpOnALeafNodeThatSaysWhatAgentsMayNot(t *testing.T) {
	b := newHub(t)
	victim := b.Agent(t)
	for account, allowed := range map[access.Account]string{access.Agents: "chandler.job.succeeded." + victim, access.Enrolment: "chandler.rpc.credentials.enrol." + victim, access.System: "$SYS.REQ.CLAIMS.PACK"} {
		th := newThief(t, b, account)
		th.say("LMSG %s 2\r\n{}", allowed)
		th.say("PING")
		if said := th.until("PONG"); said[len(said)-1] == "" {
			t.Fatalf("in account %s it may not say %s: %q", account, allowed, said)
		}
	}
	for account, subjects := range map[access.Account]string{
		access.Agents: `chandler.agent.{other}.offer chandler.beacon chandler.trust chandler.credential.withdrawn.{other} _INBOX.{other}.x chandler.offer.{other} chandler.rpc.credentials.enrol.{other}
			chandler.event.deployment.created.x $JS.API.STREAM.PURGE.JOBS $JS.hub.API.STREAM.PURGE.JOBS $JS.hub.API.STREAM.INFO.JOBS $JS.hub.API.DIRECT.GET.JOBS $JS.hub.API.DIRECT.GET.KV_chandler_accounts.x $KV.chandler_accounts.x $SYS.REQ.CLAIMS.UPDATE`,
		access.Enrolment: `_INBOX.enrol.x chandler.rpc.credentials.renew.{other} chandler.job.succeeded.{other} $JS.hub.API.DIRECT.GET.JOBS.chandler.offer.{other}`,
		access.System:    `$SYS.REQ.CLAIMS.UPDATE $SYS.REQ.CLAIMS.DELETE $SYS.REQ.SERVER.PING $SYS.ACCOUNT.x.CLAIMS.UPDATE $SYS._INBOX.x.y _INBOX.admin.x chandler.job.succeeded.{other}`,
	} {
		for _, subject := range strings.Fields(strings.ReplaceAll(subjects, "{other}", victim)) {
			th := newThief(t, b, account)
			th.say("LMSG %s 2\r\n{}", subject)
			th.say("PING")
			said := th.until("PONG")
			if said[len(said)-1] != "" || !strings.Contains(strings.Join(said, " "), "Permissions Violation") {
				t.Errorf("in account %s it may say %s: %q", account, subject, said)
			}
		}
	}
}

func TestALeafNodeHearsNothingOfTheFleetsOwn(t *testing.T) {
	b := newHub(t)
	agent := b.Agent(t)
	for _, a := range access.LeafAccounts() {
		th := newThief(t, b, a)
		for _, subject := range []string{">", "chandler.>", "$SYS.>", "_R_.>", "$JS.>"} {
			th.say("LS+ %s", subject)
		}
		th.say("PING")
		if said := th.until("PONG"); said[len(said)-1] == "" {
			t.Fatalf("in account %s the broker hung up: %q", a, said)
		}
		for _, role := range []struct {
			role    access.Role
			name    string
			subject string
		}{
			{access.Service("execution"), "execution", events.DeploymentHalted.Subject("d")},
			{access.Service("content"), "content", "$KV.chandler_packages.x"},
			{access.Agent, agent, events.JobSucceeded.Subject(agent)},
			{access.Viewer, "vera", "$SRV.PING"},
			{access.Service("execution"), "execution", events.Beacon.Subject("")}, // which the agents' does
		} {
			conn := b.Connect(t, role.role, role.name, loud(t))
			if err := conn.Publish(role.subject, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if err := conn.FlushTimeout(eventstest.Patience); err != nil {
				t.Fatal(err)
			}
		}
		th.say("PING")
		var heard []string
		for _, line := range th.until("PONG") {
			if strings.HasPrefix(line, "LMSG") || strings.HasPrefix(line, "HMSG") {
				heard = append(heard, strings.Fields(line)[1])
			}
		}
		want := ""
		if a == access.Agents {
			want = "chandler.beacon"
		}
		if got := strings.Join(heard, " "); got != want {
			t.Errorf("in account %s it heard %q, want %q", a, got, want)
		}
	}
}

func TestAnAgentThatNamesTheDomainFindsItsNewestOfferAtTheHubToo(t *testing.T) {
	for name, connected := range map[string]bool{"no leaf node was ever there": false, "a leaf node is there": true} {
		t.Run(name, func(t *testing.T) {
			b := newHub(t)
			if connected {
				th := newThief(t, b, access.Agents)
				th.say("PING")
				th.until("PONG")
			}
			agent := b.Agent(t)
			if _, err := b.Owner(t).JetStream().Publish(t.Context(), events.OfferStored(agent), []byte("{}")); err != nil {
				t.Fatal(err)
			}
			conn := b.Connect(t, access.Agent, agent, loud(t))
			for _, api := range []string{"$JS.API.", "$JS." + access.Domain + ".API."} {
				answer, err := conn.Request(api+"DIRECT.GET."+events.StreamJobs+"."+events.OfferStored(agent), nil, eventstest.Patience)
				if err != nil || answer.Header.Get("Nats-Sequence") != "1" {
					t.Errorf("%s gave %v (%v)", api, answer, err)
				}
			}
		})
	}
}

func TestALeafNodesCredentialsLetNoClientIn(t *testing.T) {
	b := newHub(t)
	for _, a := range access.LeafAccounts() {
		seed, key, err := enrolment.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		token, err := access.MintLeaf(a, b.Keys.Accounts[a], access.User{Name: "oslo", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := nats.Connect(b.URL(), nats.UserJWTAndSeed(token, string(seed))); err == nil {
			conn.Close()
			t.Errorf("in account %s a client was let in", a)
		}
	}
}
