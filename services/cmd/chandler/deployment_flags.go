package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/services/declared"
)

// createFlags are those of deployment create, as typed.
type createFlags struct {
	file                         string
	packageRef, program, to      string
	available, deadline, expires string
	at                           []string
	zone, grace, jitter          string
	rerun, valid                 string
	phases                       []string
	phasesFile, rollback         string
	maxInFlight, maxPerSite      int

	availableOnly, ignoreWindows, restartOutside bool
	yes, dryRun, watch, revise, draft            bool

	revision uint64 // 0: the one that follows
	asked    *asking
}

// deciding are the flags that say what is deployed; a document says it all.
var deciding = []string{"package", "program", "to", "available", "at", "deadline", "expires", "zone", "grace", "jitter", "rerun", "valid", "phase", "phases",
	"max-in-flight", "max-in-flight-per-site", "with-rollback", "available-only", "ignore-windows", "restart-outside"}

func (f *createFlags) register(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "a document of the deployment, instead of the flags that say what is deployed; -: standard input")
	flags.StringVar(&f.packageRef, "package", "", "package, and its version; without one the newest published")
	flags.StringVar(&f.program, "program", "", "program of the package")
	flags.StringVar(&f.to, "to", "", "collection")
	flags.StringVar(&f.available, "available", "", "not before this time (default: now)")
	flags.StringArrayVar(&f.at, "at", nil, "when it starts: asap (default), logon (when next a user logs on), logoff (when the last one has logged off; for programs with logon: none), a time, or cron:EXPRESSION; up to 15 times")
	flags.StringVar(&f.deadline, "deadline", "", "start at this time, with the content fetched before, as --at TIME")
	flags.BoolVar(&f.availableOnly, "available-only", false, "start it only where somebody at the machine asks for it")
	flags.StringVar(&f.zone, "zone", "", "zone of wall-clock times and of cron: UTC, agent (each machine's own), or a name such as Europe/Oslo")
	flags.StringVar(&f.expires, "expires", "", "start nothing after this time")
	flags.StringVar(&f.grace, "grace", "", "what a machine that was away at its time gets before it starts the program, such as 30m")
	flags.StringVar(&f.jitter, "jitter", "", "delay each start by up to so much, differently on each machine, such as 1h")
	flags.StringVar(&f.rerun, "rerun", string(order.RerunIfFailed), "where the program ran before: never, always, if-failed or if-succeeded")
	flags.BoolVar(&f.ignoreWindows, "ignore-windows", false, "start it outside maintenance windows too")
	flags.BoolVar(&f.restartOutside, "restart-outside", false, "let machines restart outside maintenance windows too")
	flags.StringArrayVar(&f.phases, "phase", nil, "a phase of the rollout; see above")
	flags.StringVar(&f.phasesFile, "phases", "", "file with the phases of the rollout, instead of --phase")
	flags.IntVar(&f.maxInFlight, "max-in-flight", 0, "at most so many jobs at a time; 0: no bound")
	flags.IntVar(&f.maxPerSite, "max-in-flight-per-site", 0, "at most so many jobs at a time on each site; 0: no bound")
	flags.StringVar(&f.rollback, "with-rollback", "", "sign also what takes it back: uninstall (the program that undoes it), or PACKAGE@VERSION/PROGRAM")
	flags.StringVar(&f.valid, "valid", "90d", "how long the signature is valid")
	flags.BoolVar(&f.yes, "yes", false, fmt.Sprintf("do not ask, also for %s machines and more", count(confirmAbove)))
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would be signed, and for how many machines; send nothing")
	flags.BoolVar(&f.watch, "watch", false, "follow the deployment to its end, as deployment watch does")
	flags.Uint64Var(&f.revision, "revision", 0, "sign this revision instead of the one that follows")
	flags.BoolVar(&f.draft, "draft", false, "keep the order until others have signed it too: where one signature is not enough")
	flags.BoolVar(&f.revise, "revise", false, "replace the deployment of this name by its next revision")
	for _, name := range deciding {
		cmd.MarkFlagsMutuallyExclusive("file", name)
	}
	a.completeFlag(cmd, "package", completePackages)
	a.completeFlag(cmd, "program", completePrograms)
	a.completeFlag(cmd, "to", completeCollections)
	completeWords(cmd, "rerun", reruns()...)
	completeWords(cmd, "at", declared.AtASAP, declared.AtLogon, declared.AtLogoff)
	completeWords(cmd, "zone", "agent", "UTC")
	completeWords(cmd, "with-rollback", declared.RollbackUninstall)
}

// declaredBy is the deployment as far as flags or document say it; mistakes in that are told before anybody is asked.
func (a *app) declaredBy(cmd *cobra.Command, args []string, f createFlags) (declared.Deployment, error) {
	if f.file != "" {
		d, err := readDeployment(cmd.InOrStdin(), f.file)
		if err != nil {
			return d, err
		}
		if len(args) > 0 && args[0] != d.Deployment {
			return d, fmt.Errorf("%s declares the deployment %s, not %s", f.file, d.Deployment, args[0])
		}
		return d, a.checkTimes(d, d.At)
	}
	if len(args) == 0 {
		return declared.Deployment{}, errors.New("NAME is missing: say it, or name a document with -f; see `chandler deployment create --help`")
	}
	return a.declaredByFlags(cmd.InOrStdin(), args[0], f)
}

func (a *app) declaredByFlags(stdin io.Reader, name string, f createFlags) (d declared.Deployment, err error) {
	for _, n := range []struct{ what, name string }{{"deployment", name}, {"--program", f.program}, {"--to", f.to}} {
		if n.name == "" {
			return d, fmt.Errorf("%s is missing; see `chandler deployment create --help`", n.what)
		}
		if err := events.ValidToken(n.name); err != nil {
			return d, fmt.Errorf("%s: %w", n.what, err)
		}
	}
	packageName, version, _ := strings.Cut(f.packageRef, "@")
	if err := events.ValidPackage(packageName); err != nil {
		return d, fmt.Errorf("--package: %w", err)
	}
	if !slices.Contains(reruns(), f.rerun) {
		return d, fmt.Errorf("--rerun %q: it must be one of %s", f.rerun, joined(reruns()))
	}
	d = declared.Deployment{
		API: declared.API, Deployment: name, Collection: f.to, Zone: calendar.Zone(f.zone), Rerun: order.Rerun(f.rerun), Rollback: f.rollback,
		IgnoreWindows: f.ignoreWindows, RestartOutside: f.restartOutside,
		// The newest version is found out later.
		Program: declared.Reference{Package: packageName, Version: cmp.Or(version, "0"), Program: f.program}.String(),
	}
	if f.availableOnly {
		d.Purpose = declared.PurposeAvailable
	}
	if err := errors.Join(a.flagTimes(&d, f), flagPlan(stdin, &d, f)); err != nil {
		return d, err
	}
	if err := d.Check(); err != nil {
		return d, fmt.Errorf("--%s", flagOf(err.Error()))
	}
	return d, a.checkTimes(d, func(key, text string) error { return fmt.Errorf("--%s %s", key, text) })
}

// flagOf puts the name of the flag before a mistake that the key of a document stands before.
func flagOf(mistake string) string {
	key, text, _ := strings.Cut(mistake, ":")
	key, _, _ = strings.Cut(key, "[")
	for document, flag := range map[string]string{"purpose": "available-only", "assignments": "at", "phases": "phase", "rollback": "with-rollback", "on-halt": "phases", "collection": "to"} {
		if key == document {
			return flag + ":" + text
		}
	}
	return mistake
}

// flagTimes fills in what the flags say about time.
func (a *app) flagTimes(d *declared.Deployment, f createFlags) error {
	valid, err := parseSpan(f.valid)
	if err != nil {
		return fmt.Errorf("--valid: %w", err)
	}
	if valid == 0 {
		return errors.New("--valid 0: an order without validity would reach nobody")
	}
	d.Validity = declared.Span(valid)
	for _, s := range []struct {
		flag, text string
		into       *events.Duration
	}{{"grace", f.grace, &d.Grace}, {"jitter", f.jitter, &d.Jitter}} {
		if s.text == "" {
			continue
		}
		span, err := parseSpan(s.text)
		if err != nil {
			return fmt.Errorf("--%s: %w", s.flag, err)
		}
		*s.into = events.Duration(span)
	}
	for _, t := range []struct {
		flag, text string
		into       **calendar.Moment
	}{{"available", f.available, &d.Available}, {"deadline", f.deadline, &d.Deadline}, {"expires", f.expires, &d.Expires}} {
		if t.text == "" {
			continue
		}
		when, err := a.parseMoment(t.text, d.Zone)
		if err != nil {
			return fmt.Errorf("--%s: %w", t.flag, err)
		}
		*t.into = &when
	}
	for _, at := range f.at {
		if at == "" {
			continue
		}
		read, err := a.parseAt(at, d.Zone)
		if err != nil {
			return fmt.Errorf("--at %q: %w", at, err)
		}
		d.Assignments = append(d.Assignments, read)
	}
	return nil
}

// parseMoment reads a time as typed; a wall-clock time where a zone is named.
func (a *app) parseMoment(text string, zone calendar.Zone) (calendar.Moment, error) {
	if m, err := calendar.ParseMoment(strings.Replace(text, " ", "T", 1)); err == nil && m.Floating() && zone != "" {
		return m, nil
	}
	when, err := parseWhen(text, a.now())
	if err != nil {
		return calendar.Moment{}, err
	}
	return calendar.At(when), nil
}

func (a *app) parseAt(at string, zone calendar.Zone) (declared.Assignment, error) {
	if cron, ok := strings.CutPrefix(at, "cron:"); ok {
		parsed, err := calendar.ParseCron(cron)
		return declared.Assignment{Cron: parsed.String()}, err
	}
	if slices.Contains([]string{declared.AtASAP, declared.AtLogon, declared.AtLogoff}, at) {
		return declared.Assignment{At: at}, nil
	}
	m, err := a.parseMoment(at, zone)
	if err != nil {
		return declared.Assignment{}, fmt.Errorf("it must be %s, %s, %s, cron:EXPRESSION, or a time: %w", declared.AtASAP, declared.AtLogon, declared.AtLogoff, err)
	}
	return declared.Assignment{At: m.String()}, nil
}

// checkTimes refuses times that would keep a new deployment from ever starting. at makes an error about a key.
func (a *app) checkTimes(d declared.Deployment, at func(key, text string) error) error {
	o, err := d.Order(a.now())
	if err != nil {
		return err
	}
	times := []struct {
		key string
		m   *calendar.Moment
	}{{"available", o.Available}, {"deadline", d.Deadline}, {"expires", o.Expires}}
	for _, s := range o.Assignments {
		if s.At != nil && s.At != d.Deadline {
			times = append(times, struct {
				key string
				m   *calendar.Moment
			}{"at", s.At})
		}
	}
	for _, t := range times {
		switch {
		case t.m == nil:
		case t.key != "available" && !t.m.Latest().After(o.Issued):
			return at(t.key, fmt.Sprintf("lies in the past (%s): say a later time, or leave it out", a.moment(t.m, o.Zone)))
		case !t.m.Earliest().Before(o.NotAfter):
			return at(t.key, fmt.Sprintf("lies after %s, when the signature ends to be valid: give it a longer validity (--valid)", a.longTime(o.NotAfter)))
		case t.key != "expires" && o.Expires != nil && !o.Expires.Latest().After(t.m.Earliest()):
			return at("expires", fmt.Sprintf("lies before %s: nothing would ever start", t.key))
		}
	}
	return nil
}

// readDeployment reads the one deployment that a file, or standard input (-), declares.
func readDeployment(stdin io.Reader, file string) (declared.Deployment, error) {
	data, err := readDeclared(stdin, file)
	if err != nil {
		return declared.Deployment{}, err
	}
	set, err := declared.Parse(file, data)
	if err != nil {
		return declared.Deployment{}, err
	}
	if len(set.Deployments) != 1 {
		return declared.Deployment{}, fmt.Errorf("%s declares %s: name a file with one; `chandler apply` takes several", file, plural(len(set.Deployments), "deployment", "deployments"))
	}
	return set.Deployments[0], nil
}

// maxDeclared bounds one file of documents, in bytes.
const maxDeclared = 1 << 20

// readDeclared reads a file of documents, or standard input (-).
func readDeclared(stdin io.Reader, file string) ([]byte, error) {
	from := stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		from = opened
	}
	data, err := io.ReadAll(io.LimitReader(from, maxDeclared+1))
	if err == nil && len(data) > maxDeclared {
		err = fmt.Errorf("%s has more than %d bytes", file, maxDeclared)
	}
	return data, err
}
