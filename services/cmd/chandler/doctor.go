package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
)

// finding is what doctor says about one thing.
type finding struct {
	About  string `json:"about"`
	State  string `json:"state"` // ok, skipped, warning or problem
	Says   string `json:"says"`
	Advice string `json:"advice,omitempty"`
}

const (
	stateOK      = "ok"
	stateSkipped = "skipped" // nobody looked, and that is no fault
	stateWarning = "warning"
	stateProblem = "problem"
)

func ok(about, format string, args ...any) finding {
	return finding{About: about, State: stateOK, Says: fmt.Sprintf(format, args...)}
}

func skipped(about, advice, format string, args ...any) finding {
	return finding{about, stateSkipped, fmt.Sprintf(format, args...), advice}
}

func warning(about, advice, format string, args ...any) finding {
	return finding{about, stateWarning, fmt.Sprintf(format, args...), advice}
}

func problem(about, advice, format string, args ...any) finding {
	return finding{about, stateProblem, fmt.Sprintf(format, args...), advice}
}

func newDoctor(a *app) *cobra.Command {
	var reconcile bool
	var data string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong: broker, streams, services, agents, orders, keys", Args: cobra.NoArgs,
		Long: `Looks at everything that can be looked at from here and says what to do. Nothing is changed in the fleet; this
machine follows the newest trust bundle, as it does to sign. The exit code is 1 if there is a problem; warnings
do not count. What your role may not look at is skipped. What a server keeps, where it listens and how well its
services are is looked at on its own machine: where the context does not name its data directory, say --data
there.

With --reconcile it looks at nothing, but lets everybody tell again what they keep: scheduling every live
deployment and whom it released, and agents every job. That is for a broker that lost or was restored from
an older copy of what it stored. It may be repeated at any time: what is known already has no effect, and
nothing runs twice. In a large fleet it costs as much as a day's statuses.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if reconcile {
				return a.connected(a.reconcile)(cmd, args)
			}
			where, err := a.current()
			if err != nil {
				return err
			}
			if data != "" {
				where.Data = data
			}
			found := a.examine(cmd.Context(), where)
			if err := findingColumns.show(cmd, a.output, found); err != nil {
				return err
			}
			for _, f := range found {
				if f.State == stateProblem {
					return exitCode(1)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server on this machine (default: that of the context)")
	cmd.Flags().BoolVar(&reconcile, "reconcile", false, "let services and agents tell again what they know of live deployments and jobs")
	return cmd
}

var findingColumns = listing[finding]{
	name: func(f finding) string { return f.About },
	columns: []column[finding]{
		{"STATE", false, func(f finding) any { return f.State }},
		{"ABOUT", false, func(f finding) any { return f.About }},
		{"SAYS", false, func(f finding) any {
			if f.Advice == "" {
				return f.Says
			}
			return f.Says + ": " + f.Advice
		}},
	},
}

// examine runs every examination; without a broker only those that need none.
func (a *app) examine(ctx context.Context, where connection) []finding {
	here := slices.Concat(a.examineFiles(where), a.examineServer(ctx, where))
	c, err := dial(where, a.timeout)
	if err != nil {
		return slices.Concat(a.examineKeys(where), here, []finding{judgeDial(where, err)})
	}
	defer c.bus.Conn().Close()
	inForce, found := a.examineSigning(ctx, c)
	found = slices.Concat(found, here, a.examineBroker(c))
	for _, look := range []struct {
		about          string
		administrators bool // only they may look
		at             func(context.Context, *client) ([]finding, error)
	}{
		{"topology", true, examineTopology}, {"services", false, examineServices}, {"readers", true, examineConsumers}, {"dead letters", true, a.examineDeadLetters},
		{"trust bundle", false, examineTrust}, {"users", false, a.examineUsers}, {"tokens", true, a.examineTokens}, {"revocations", true, a.examineRevocations},
		{"agents", false, a.examineAgents}, {"approvals", false, examinePending},
		{"orders", false, func(ctx context.Context, c *client) ([]finding, error) { return a.examineOrders(ctx, c, inForce) }},
		{"accounts", false, examineAccounts}, {"freezes", false, a.examineFreezes}, {"rollouts", false, a.examineRollouts},
	} {
		if look.administrators && !c.administers() {
			found = append(found, skipped(look.about, "an administrator sees it", "your role, %s, may not look", c.role))
			continue
		}
		looking, stop := c.refusals.watch(ctx, "")
		more, err := look.at(looking, c)
		refused, denied := errors.AsType[*notAllowed](context.Cause(looking))
		stop()
		found = append(found, more...)
		switch {
		case err == nil || errors.Is(err, bus.ErrUnavailable): // a service that is away is told already
		case denied:
			found = append(found, skipped(look.about, "an administrator sees more", "%v look", refused.in(c)))
		default:
			found = append(found, problem("examination", "mend what is said above first", "%v", err))
		}
	}
	return found
}

// administers says whether this user may look at everything: administrators, and whoever comes to a broker that
// asks nobody who they are.
func (c *client) administers() bool { return c.role == "" || c.role == access.Administrator }

func (a *app) examineBroker(c *client) []finding {
	nc := c.bus.Conn()
	rtt, err := nc.RTT()
	if err != nil {
		return []finding{problem("broker", "look at its log", "%s does not answer: %v", c.Server, err)}
	}
	found := []finding{ok("broker", "nats-server %s at %s answers in %s", nc.ConnectedServerVersion(), nc.ConnectedUrlRedacted(), rtt.Round(10*time.Microsecond))}
	if nc.MaxPayload() < events.MaxPayload {
		found = append(found, warning("broker", "set max_payload to 2MB", "it takes messages of %s bytes at most: of large events that nobody could take, only the beginning is kept", count(nc.MaxPayload())))
	}
	shown, err := nc.TLSConnectionState()
	switch {
	case err == nil:
		for _, cert := range shown.PeerCertificates {
			found = append(found, a.judgeCertificate("certificate", "renew it: an own one is renewed when `chandler up --tls` starts where ca.key is", cert)...)
		}
	case !loopbackURL(nc.ConnectedUrl()):
		found = append(found, warning("listener broker", "serve it with TLS before anything leaves this network", "the connection to %s is not encrypted", nc.ConnectedUrlRedacted()))
	case !present(c.Data): // examineServer knows better
		if address, err := brokerListens(nc.ConnectedAddr()); err == nil && !loopback(address) {
			found = append(found, warning("listener broker", "serve it with TLS before anything leaves this network", "it takes connections on %s too, without encryption", address))
		}
	}
	const advice = "give it operator and accounts: `chandler up` does, deploy/nats says how for another"
	switch {
	case nc.AuthRequired():
	case loopbackURL(nc.ConnectedUrl()):
		found = append(found, warning("broker", advice, "it asks nobody who they are"))
	default:
		found = append(found, problem("broker", advice, "it asks nobody who they are"))
	}
	return found
}

func loopbackURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && loopbackHost(u.Hostname())
}

// loopbackHost says whether only this machine can reach an address.
func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (a *app) examineAgents(ctx context.Context, c *client) ([]finding, error) {
	all, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return nil, err
	}
	var silent []string
	for _, v := range all.Agents {
		if a.now().Sub(v.LastSeen) > silentAfter {
			silent = append(silent, v.Facts.Hostname)
		}
	}
	switch {
	case len(all.Agents) == 0:
		return []finding{warning("agents", "start chandler-agent on a machine", "none has reported yet")}, nil
	case len(silent) > 0:
		return []finding{warning("agents", "`chandler agent ls` shows since when; machines that are off are no fault", "%d of %d silent for more than %s: %s",
			len(silent), len(all.Agents), silentAfter, firstOf(silent, 5))}, nil
	}
	return []finding{ok("agents", "%s, none silent", plural(len(all.Agents), "agent", "agents"))}, nil
}

// nearEnd is how long before its end an order's validity is warned about.
const nearEnd = 14 * 24 * time.Hour

// lastPart of an order's validity is near its end however short the whole was meant to be.
const lastPart = 6

func (a *app) judgeOrders(all []events.DeploymentView) []finding {
	var found []finding
	live := 0
	for _, d := range all {
		if d.Life == events.LifeStopped || d.Life == events.LifeExpired {
			continue
		}
		live++
		left := d.NotAfter.Sub(a.now())
		warnBelow := min(nearEnd, d.NotAfter.Sub(d.At)/lastPart)
		switch {
		case left <= 0:
			found = append(found, problem("order", "create it again with --revise", "the signature of deployment %s ended to be valid at %s", d.Deployment, a.longTime(d.NotAfter)))
		case left < warnBelow:
			found = append(found, warning("order", "create it again with --revise", "the signature of deployment %s is valid only until %s", d.Deployment, a.longTime(d.NotAfter)))
		}
	}
	if len(found) == 0 {
		found = append(found, ok("orders", "%s, every signature is valid for long enough", plural(live, "live deployment", "live deployments")))
	}
	return found
}

// firstOf shows the first n of a list.
func firstOf(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
