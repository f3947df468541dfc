package access_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/eventstest"
)

// quiet keeps refusals that are expected off the screen.
var quiet = nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})

// loud fails the test when the broker refuses something.
func loud(t *testing.T) nats.Option {
	return nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("the broker refuses: %v", err) })
}

// refused says whether the broker refused what the connection did last about the subject.
func refused(t *testing.T, conn *nats.Conn, subject string) bool {
	t.Helper()
	if err := conn.FlushTimeout(eventstest.Patience); err != nil { // the broker's refusal comes before its answer
		t.Fatalf("%s: %v", subject, err)
	}
	err := conn.LastError()
	return err != nil && strings.Contains(err.Error(), `"`+subject+`"`)
}

func refusesPublish(t *testing.T, conn *nats.Conn, subject string) bool {
	t.Helper()
	if err := conn.Publish(subject, nil); err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	return refused(t, conn, subject)
}

func refusesSubscribe(t *testing.T, conn *nats.Conn, subject string) bool {
	t.Helper()
	sub, err := conn.SubscribeSync(subject)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	return refused(t, conn, subject)
}

// rights of one role, as subjects. {me}, {key} and {other} stand for the user's name and key and
// somebody else's name.
type rights struct {
	role                   access.Role
	name                   string // empty: an agent
	publish, mayNotPublish string
	hear, mayNotHear       string
}

// What nobody but services may do.
const (
	neverPublish = `chandler.offer.{other} chandler.agent.{other}.offer chandler.beacon chandler.trust chandler.event.deployment.created.x chandler.event.audit.recorded.scheduling
		chandler.timer.scheduling.x chandler.due.scheduling chandler.fold.0 chandler.history.{other} chandler.deadletter.EVENTS
		$KV.chandler_accounts.x $O.chandler_fold.C.x $JS.ACK.EVENTS.execution.1.1.1.1.1 $JS.FC.EVENTS.x _INBOX.{other}.x _INBOX.scheduling.x _R_.x
		$JS.API.STREAM.PURGE.EVENTS $JS.API.STREAM.DELETE.JOBS $JS.API.STREAM.UPDATE.JOBS $JS.API.STREAM.MSG.DELETE.EVENTS
		$JS.API.DIRECT.GET.KV_chandler_accounts $JS.API.DIRECT.GET.KV_chandler_accounts.x $JS.API.CONSUMER.CREATE.KV_chandler_accounts.x $SYS.REQ.CLAIMS.UPDATE $SYS.REQ.SERVER.PING`
	neverHear = `> *.> chandler.> chandler.rpc.> chandler.rpc.*.*.*.* _INBOX.> _INBOX.{other}.> _INBOX.*.x $JS.> $KV.> $SYS.> $SRV.> chandler.fold.* chandler.timer.> chandler.agent.> chandler.agent.{other}.offer`
)

func table() []rights {
	return []rights{
		{
			role: access.Agent,
			publish: `chandler.job.succeeded.{me} chandler.job.waiting.{me} chandler.log.{me} chandler.event.agent.reported.{me} chandler.heartbeat.{me}
				chandler.rpc.execution.sync.{me} chandler.rpc.execution.order.{me} chandler.rpc.credentials.lease.{me} chandler.rpc.credentials.renew.{me} chandler.rpc.credentials.trust.{me} chandler.rpc.content.locate.{me}
				chandler.rpc.credentials.account_test_answer.{me} chandler.event.credential.used.{me} $JS.API.DIRECT.GET.JOBS.chandler.offer.{me} $JS.hub.API.DIRECT.GET.JOBS.chandler.offer.{me}`,
			mayNotPublish: neverPublish + ` chandler.job.succeeded.{other} chandler.job.succeeded chandler.job.succeeded.{me}.x chandler.log.{other} chandler.event.agent.reported.{other} chandler.heartbeat.{other}
				chandler.event.credential.used.{other} chandler.event.credential.leased.{me} chandler.event.credential.requested.{me} chandler.event.credential.revoked.{me} chandler.credential.test.{me} chandler.credential.withdrawn.{other}
				chandler.rpc.credentials.account_test_answer.{other} chandler.rpc.credentials.account_test.{key}.{me} chandler.rpc.credentials.lease_list.{key}.{me} chandler.rpc.credentials.lease_revoke.{key}.{me}
				chandler.rpc.execution.sync.{other} chandler.rpc.credentials.lease.{other} chandler.rpc.credentials.enrol.{me} chandler.rpc.credentials.return.{me}
				chandler.rpc.scheduling.deployment_list.{key}.{me} chandler.rpc.scheduling.deployment_create.{key}.{me} chandler.rpc.credentials.token_create.{key}.{me}
				$JS.hub.API.DIRECT.GET.JOBS $JS.hub.API.DIRECT.GET.JOBS.chandler.offer.{other} $JS.hub.API.DIRECT.GET.JOBS.chandler.offer.* $JS.hub.API.STREAM.INFO.JOBS $JS.hub.API.INFO
				$JS.API.DIRECT.GET.JOBS $JS.API.DIRECT.GET.JOBS.chandler.offer.{other} $JS.API.DIRECT.GET.STATUS $JS.API.STREAM.INFO.JOBS $JS.API.INFO $JS.API.CONSUMER.CREATE.JOBS $SRV.PING`,
			hear: `chandler.agent.{me}.> chandler.agent.{me}.offer chandler.beacon chandler.trust chandler.credential.test.{me} chandler.credential.withdrawn.{me} _INBOX.{me}.x.*`,
			mayNotHear: neverHear + ` chandler.credential.test.{other} chandler.credential.test.* chandler.credential.withdrawn.{other} chandler.credential.withdrawn.* chandler.credential.> chandler.credential.*.{me}
				chandler.agent.*.offer chandler.job.> chandler.job.*.{me} chandler.event.> chandler.heartbeat.* chandler.offer.* chandler.log.*`,
		},
		{
			role: access.Enrolling, name: "enrolment",
			publish:       `chandler.rpc.credentials.enrol.{other} chandler.rpc.credentials.return.{other}`,
			mayNotPublish: neverPublish + ` chandler.rpc.credentials.renew.{other} chandler.rpc.credentials.trust.{other} chandler.rpc.execution.sync.{other} chandler.job.succeeded.{other} chandler.heartbeat.{other} $JS.API.INFO $SRV.PING $JS.API.DIRECT.GET.JOBS.chandler.offer.{other}`,
			hear:          `_INBOX.enrol.x.*`,
			mayNotHear:    neverHear + ` chandler.beacon chandler.trust chandler.event.>`,
		},
		{
			role: access.Viewer, name: "vera",
			publish: `chandler.rpc.scheduling.deployment_list.{key}.{me} chandler.rpc.credentials.enrolment_list.{key}.{me} $JS.API.DIRECT.GET.EVENTS $SRV.PING $SRV.STATS.scheduling`,
			mayNotPublish: neverPublish + ` chandler.rpc.scheduling.deployment_list.{key}.{other} chandler.rpc.scheduling.deployment_list.nokey.{me} chandler.rpc.scheduling.deployment_create.{key}.{me} chandler.rpc.execution.stop.{key}.{me}
				chandler.rpc.credentials.token_create.{key}.{me} chandler.rpc.execution.sync.{other} $JS.API.DIRECT.GET.FOLD $JS.API.DIRECT.GET.TIMERS $JS.API.CONSUMER.CREATE.EVENTS $JS.API.STREAM.LIST $JS.API.STREAM.INFO.STATUS $JS.API.INFO chandler.job.succeeded.{other}`,
			hear:       `chandler.event.> chandler.event.package.published.* chandler.job.*.* chandler.job.failed.* chandler.log.* chandler.beacon _INBOX.{me}.x.*`,
			mayNotHear: neverHear,
		},
		{
			role: access.Deployer, name: "dora",
			publish: `chandler.rpc.scheduling.deployment_list.{key}.{me} chandler.rpc.scheduling.deployment_create.{key}.{me} chandler.rpc.content.commit.{key}.{me} chandler.rpc.execution.freeze.{key}.{me} $JS.API.DIRECT.GET.EVENTS`,
			mayNotPublish: neverPublish + ` chandler.rpc.scheduling.deployment_create.{key}.{other} chandler.rpc.credentials.account_set.{key}.{me} chandler.rpc.credentials.trust_set.{key}.{me} chandler.rpc.credentials.token_create.{key}.{me}
				chandler.rpc.credentials.account_rotate.{key}.{me} chandler.rpc.credentials.account_test.{key}.{me} chandler.rpc.credentials.account_rekey.{key}.{me} chandler.rpc.credentials.lease_revoke.{key}.{me}
				chandler.rpc.credentials.user_add.{key}.{me} chandler.rpc.credentials.agent_revoke.{key}.{me} chandler.rpc.execution.retell.{key}.{me} $JS.API.CONSUMER.CREATE.EVENTS`,
			hear:       `chandler.event.> chandler.job.*.* _INBOX.{me}.x.*`,
			mayNotHear: neverHear,
		},
		{
			role: access.Administrator, name: "ada",
			publish: `chandler.rpc.scheduling.deployment_list.{key}.{me} chandler.rpc.scheduling.deployment_create.{key}.{me} chandler.rpc.credentials.token_create.{key}.{me} $JS.API.INFO $JS.API.STREAM.LIST $JS.API.STREAM.INFO.KV_chandler_accounts
				$JS.API.CONSUMER.LIST.EVENTS $JS.API.CONSUMER.INFO.EVENTS.execution $JS.API.DIRECT.GET.FOLD $SRV.PING`,
			mayNotPublish: neverPublish + ` chandler.rpc.credentials.token_create.{key}.{other} chandler.rpc.credentials.token_create.nokey.{me} chandler.rpc.execution.sync.{other} chandler.job.succeeded.{other} chandler.event.agent.reported.{other}
				$JS.API.STREAM.CREATE.x $JS.API.STREAM.PURGE.KV_chandler_agents
				$JS.API.CONSUMER.CREATE.EVENTS $JS.API.CONSUMER.CREATE.EVENTS.x.y $JS.API.CONSUMER.DELETE.EVENTS.execution $JS.API.CONSUMER.MSG.NEXT.EVENTS.execution`,
			hear:       `chandler.event.> chandler.job.*.* _INBOX.{me}.x.*`,
			mayNotHear: neverHear,
		},
		{
			role: access.Provisioner, name: "provisioner",
			publish: `$JS.API.STREAM.INFO.EVENTS $JS.API.STREAM.CREATE.EVENTS $JS.API.STREAM.CREATE.KV_chandler_trust $JS.API.STREAM.INFO.OBJ_chandler_fold
				$JS.API.STREAM.SNAPSHOT.EVENTS $JS.SNAPSHOT.ACK.EVENTS.x.1.1 $JS.API.CONSUMER.LIST.EVENTS`,
			mayNotPublish: strings.NewReplacer("$JS.API.STREAM.UPDATE.JOBS", "", "$JS.API.CONSUMER.CREATE.KV_chandler_accounts.x", "").Replace(neverPublish) + ` $JS.API.CONSUMER.CREATE.EVENTS.execution $JS.API.STREAM.CREATE.x $JS.API.DIRECT.GET.EVENTS chandler.rpc.scheduling.deployment_list.{key}.{me} $SRV.PING`,
			hear:          `_INBOX.{me}.x.*`,
			mayNotHear:    neverHear + ` chandler.event.> chandler.job.*.*`,
		},
		{
			role: access.Service("content"), name: "content",
			publish: `chandler.event.package.published.x chandler.event.audit.recorded.content $KV.chandler_packages.x _INBOX.{other}.x _R_.x $JS.ACK.EVENTS.content.1.1.1.1.1 chandler.deadletter.EVENTS $JS.API.STREAM.PURGE.KV_chandler_packages`,
			mayNotPublish: `chandler.event.deployment.created.x chandler.event.audit.recorded.scheduling chandler.offer.{other} chandler.beacon chandler.job.succeeded.{other} chandler.timer.content.x chandler.fold.0
				$KV.chandler_accounts.x $KV.chandler_deployments.x $JS.ACK.EVENTS.execution.1.1.1.1.1 $JS.API.STREAM.PURGE.EVENTS $JS.API.DIRECT.GET.KV_chandler_accounts $JS.API.CONSUMER.CREATE.EVENTS.execution $JS.API.CONSUMER.MSG.NEXT.EVENTS.execution
				$JS.API.STREAM.CREATE.KV_chandler_packages chandler.rpc.content.list.{key}.{me} chandler.rpc.credentials.lease.{other} $SYS.REQ.CLAIMS.UPDATE`,
			hear:       `chandler.rpc.content.locate.* chandler.rpc.content.list.*.* $SRV.PING $SRV.INFO.content _INBOX.content.x.*`,
			mayNotHear: neverHear + ` chandler.rpc.credentials.lease.* chandler.rpc.credentials.account_set.*.* chandler.event.> chandler.heartbeat.* $SRV.INFO.scheduling`,
		},
		{
			role: access.Service("credentials"), name: "credentials",
			publish: `chandler.event.credential.leased.{other} chandler.event.credential.revoked.{other} chandler.credential.test.{other} chandler.credential.withdrawn.{other} $KV.chandler_leases.x $KV.chandler_accounts.x
				$JS.API.CONSUMER.MSG.NEXT.EVENTS.credentials $JS.ACK.EVENTS.credentials.1.1.1.1.1 chandler.deadletter.EVENTS $JS.API.DIRECT.GET.JOBS $JS.API.DIRECT.GET.STATUS`,
			mayNotPublish: `chandler.event.credential.used.{other} chandler.event.job.finished.{other} chandler.offer.{other} chandler.job.succeeded.{other} chandler.event.deployment.created.x $KV.chandler_orders.x
				$JS.API.CONSUMER.MSG.NEXT.EVENTS.execution $JS.ACK.EVENTS.execution.1.1.1.1.1 $JS.API.STREAM.PURGE.EVENTS chandler.rpc.credentials.account_set.{key}.{me} chandler.rpc.execution.order.{other} $SYS.REQ.CLAIMS.UPDATE`,
			hear:       `chandler.rpc.credentials.lease.* chandler.rpc.credentials.account_test_answer.* chandler.rpc.credentials.account_set.*.* _INBOX.credentials.x.*`,
			mayNotHear: neverHear + ` chandler.credential.test.* chandler.event.> chandler.job.*.* chandler.rpc.execution.order.*`,
		},
		{
			role: access.Service("scheduling"), name: "scheduling",
			publish: `chandler.event.deployment.released.x chandler.timer.scheduling.x $KV.chandler_deployments.x chandler.rpc.content.list.{key}.{me} $JS.API.CONSUMER.MSG.NEXT.EVENTS.scheduling $JS.API.DIRECT.GET.EVENTS`,
			mayNotPublish: `chandler.offer.{other} chandler.timer.execution.x chandler.due.scheduling $KV.chandler_control.x $JS.API.CONSUMER.MSG.NEXT.EVENTS.execution $JS.API.CONSUMER.DELETE.EVENTS.execution $JS.ACK.EVENTS.execution.1.1.1.1.1
				chandler.rpc.content.list.{key}.ada chandler.rpc.content.list.nokey.{me} chandler.rpc.content.commit.{key}.{me} chandler.rpc.credentials.account_list.{key}.{me} chandler.rpc.execution.order.{other}`,
			hear:       `chandler.heartbeat.* chandler.rpc.scheduling.why.*.* _INBOX.scheduling.x.*`,
			mayNotHear: neverHear + ` chandler.rpc.credentials.lease.* chandler.event.> chandler.job.*.*`,
		},
	}
}

func TestEachRoleMayDoWhatItMayAndNothingElse(t *testing.T) {
	b := eventstest.Secure(t)
	for _, c := range table() {
		t.Run(string(c.role), func(t *testing.T) {
			name, other := c.name, b.Agent(t)
			if name == "" {
				name = b.Agent(t)
			}
			conn := b.Connect(t, c.role, name, quiet)
			subjects := func(list string) []string {
				return strings.Fields(strings.NewReplacer("{other}", other, "{key}", b.User(t, c.role, name).Key, "{me}", name).Replace(list))
			}
			for _, s := range subjects(c.publish) {
				if refusesPublish(t, conn, s) {
					t.Errorf("may not publish on %s", s)
				}
			}
			for _, s := range subjects(c.mayNotPublish) {
				if !refusesPublish(t, conn, s) {
					t.Errorf("may publish on %s", s)
				}
			}
			for _, s := range subjects(c.hear) {
				if refusesSubscribe(t, conn, s) {
					t.Errorf("may not subscribe to %s", s)
				}
			}
			for _, s := range subjects(c.mayNotHear) {
				if !refusesSubscribe(t, conn, s) {
					t.Errorf("may subscribe to %s", s)
				}
			}
		})
	}
}

func TestAnAgentHearsOfItsOwnTestsAndLeasesAlone(t *testing.T) {
	b := eventstest.Secure(t)
	me, other := b.Agent(t), b.Agent(t)
	conn := b.Connect(t, access.Agent, me, quiet)
	heard := make(chan *nats.Msg, 8)
	subjects := func(agent string) []string {
		return []string{events.AccountTestAsked.Subject(agent), events.LeaseWithdrawn.Subject(agent)}
	}
	for _, s := range append(subjects(other), subjects(me)...) {
		if _, err := conn.ChanSubscribe(s, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.FlushTimeout(eventstest.Patience); err != nil {
		t.Fatal(err)
	}
	service := b.Connect(t, access.Service("credentials"), "credentials", loud(t))
	for _, s := range append(subjects(other), subjects(me)...) {
		if err := service.Publish(s, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range subjects(me) {
		if m := next(t, heard); m.Subject != want {
			t.Errorf("heard %s, want %s", m.Subject, want)
		}
	}
	if n := len(heard); n > 0 {
		t.Errorf("heard %d more", n)
	}
}

func TestAnIntegratorHearsTheEventsThatWereChosenAndNoOthers(t *testing.T) {
	b := eventstest.Secure(t)
	b.Integrator(t, "monitor", "package.published", events.JobFailed.Name)
	conn := b.Connect(t, access.Integrator, "monitor", quiet)
	heard := make(chan *nats.Msg, 8)
	for _, s := range []string{events.PackagePublished.Subject("*"), events.JobFailed.Subject("*")} {
		if _, err := conn.ChanSubscribe(s, heard); err != nil {
			t.Fatal(err)
		}
		if refused(t, conn, s) {
			t.Errorf("may not subscribe to %s", s)
		}
	}
	for _, s := range []string{">", "chandler.>", "chandler.event.>", "chandler.event.package.removed.*", "chandler.job.*.*", "chandler.job.succeeded.*", "_INBOX.>", "_INBOX.monitor.>"} {
		if !refusesSubscribe(t, conn, s) {
			t.Errorf("may subscribe to %s", s)
		}
	}
	for _, s := range []string{"x", "chandler.event.package.published.x", "$SRV.PING", "$JS.API.STREAM.INFO.EVENTS", "chandler.rpc.content.list." + b.User(t, access.Integrator, "monitor").Key + ".monitor"} {
		if !refusesPublish(t, conn, s) {
			t.Errorf("may publish on %s", s)
		}
	}
	agent := b.Agent(t)
	for _, say := range []struct {
		role    access.Role
		name    string
		subject string
	}{
		{access.Agent, agent, events.JobSucceeded.Subject(agent)},
		{access.Service("content"), "content", events.PackageRemoved.Subject("x")},
		{access.Service("content"), "content", events.PackagePublished.Subject("x")},
		{access.Agent, agent, events.JobFailed.Subject(agent)},
	} {
		speaker := b.Connect(t, say.role, say.name, loud(t))
		if err := speaker.Publish(say.subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := speaker.FlushTimeout(eventstest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{events.PackagePublished.Subject("x"), events.JobFailed.Subject(agent)} {
		if m := next(t, heard); m.Subject != want {
			t.Errorf("heard %s, want %s", m.Subject, want)
		}
	}
}
