package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chandler/agent/cmlog"
	"chandler/agent/identity"
	"chandler/events"
	"chandler/events/resource"
	"chandler/services/integration/machinetest"
)

// denial is what is to be told of an access that failed.
type denial struct {
	reason   events.Reason
	who      identity.Who // who tried; Nobody where there is nobody who could
	account  string       // by which; "": none
	when     string       // content, reference or run
	resource string       // its address
	code     string       // as the field knows the answer; "": nobody was asked
	log      string
}

// entriesOf are those of a job in the machine's log, read back by the parser of such logs.
func entriesOf(t *testing.T, m *machinetest.Machine, file, job string) (list []cmlog.Entry) {
	t.Helper()
	data, _ := m.ReadFile(jobLogs + file)
	for e, err := range cmlog.Parse(strings.NewReader(string(data))) {
		must(t, err)
		if e.Context == job || strings.Contains(e.Text, " : job "+job+" : ") {
			list = append(list, e)
		}
	}
	return list
}

// wantDenial makes sure that the event and one line of the log, the only one of its kind, tell the same. It gives the line.
func (s story) wantDenial(t *testing.T, job events.JobStatus, want denial) (line string) {
	t.Helper()
	if job.State == events.Failed && (job.Reason != want.reason || job.Resource != want.resource || !strings.HasSuffix(job.Answer, want.code) || want.who != "" && job.Identity != string(want.who)) {
		t.Fatalf("%s: the event tells %s", job.Deployment, compact(job))
	}
	tells := func(a events.Access) bool {
		return a.Reason == want.reason && a.Resource == want.resource && a.When == want.when && a.Account == want.account && strings.HasSuffix(a.Answer, want.code)
	}
	if n := len(slices.DeleteFunc(slices.Clone(job.Accesses), func(a events.Access) bool { return !tells(a) })); n != 1 {
		t.Errorf("%s: %d accesses of the event are as they should be: %s", job.Deployment, n, compact(job.Accesses))
	}
	var coded, errors []string
	for _, e := range entriesOf(t, s.m, want.log, job.Job) {
		if e.Type == cmlog.Error {
			errors = append(errors, e.Text)
		}
		if want.code != "" && strings.Contains(e.Text, want.code) {
			coded = append(coded, e.Text)
		}
	}
	if len(errors) != 1 || want.code != "" && len(coded) != 1 {
		t.Fatalf("%s: %d lines of %s tell of an error, and %d of %s: want one:\n%s", job.Deployment, len(errors), want.log, len(coded), want.code, strings.Join(append(errors, coded...), "\n"))
	}
	shown, why := resource.Shown(want.resource), s.cli(t, "job", "why", job.Job)
	if want.reason == events.NetworkAccessAccountMissing {
		shown = shown[:strings.LastIndexByte(shown, '\\')] // the order names the folder, and that is what was asked for
	}
	for _, word := range []string{shown, want.account, want.code} {
		if !strings.Contains(errors[0], word) || !strings.Contains(why, word) {
			t.Fatalf("%s: the line of %s, or the explanation, does not tell %q: %s\n%s", job.Deployment, want.log, word, errors[0], why)
		}
	}
	return errors[0]
}

// cell is one way in which an access fails.
type cell struct {
	name, share, file string // file: of the folder of a package; the share's own name where it does not matter which
	denial
}

const deniedCode = "(5/0x80070005)"

// deniedCells are those of whoever reads content by an account, with the accounts by which the shares are reached.
func deniedCells(account, forgetful, leaver string) []cell {
	return []cell{
		{"share", private, "", denial{reason: events.NetworkAccessDenied, account: account, code: deniedCode}},
		{"file", software, "closed", denial{reason: events.NetworkAccessDenied, account: account, code: deniedCode}},
		{"wrong", forgotten, "", denial{reason: events.CredentialRejected, account: forgetful, code: "(1326/0x8007052E)"}},
		{"disabled", left, "", denial{reason: events.CredentialRejected, account: leaver, code: "(1331/0x80070533)"}},
	}
}

// TestWhatMayNotBeReadIsExplained is about every access to the file server that fails: what event and log say, that they
// say which case it was, and that a wrong secret is tried once.
func TestWhatMayNotBeReadIsExplained(t *testing.T) {
	o := newOutside(t, "not-to-be-read")
	advanced := append(deniedCells(readerUser, "forgetful", "leaver"), cell{"missing", nobodys, "", denial{reason: events.NetworkAccessAccountMissing}})
	legacy := deniedCells(installerUser, "corpforgetful", "corpleaver")
	for _, c := range advanced {
		o.publishDenied(t, "advanced", c, "")
	}
	for _, c := range legacy {
		o.publishDenied(t, "legacy", c, c.account)
	}
	for _, c := range []struct {
		machine   *machinetest.Machine
		who       identity.Who
		log       string
		cells     []cell
		forgetful string
	}{
		{o.newMachine("advanced"), identity.NetworkAccess, advancedLog, advanced, "forgetful"},
		{o.newMachine("legacy", "--client-kind", "legacy"), identity.Installation, legacyLog, legacy, "corpforgetful"},
	} {
		t.Run(c.machine.Name, func(t *testing.T) {
			t.Parallel()
			m := c.machine.For(t)
			defer explain(t, m)
			outsideStory{story{o.site, m}, o}.denied(t, c.who, c.log, c.cells, c.forgetful)
		})
	}
}

// publishDenied publishes a package whose content cannot be read, and one that refers to what cannot be.
func (o *outside) publishDenied(t *testing.T, machine string, c cell, account string) {
	t.Helper()
	run := "run: administrative"
	if account != "" {
		run += ", installation-account: " + account
	}
	content, refs := o.contentOf(machine, c), machine+"-refs-"+c.name
	o.onShare(c.share, content, `programs:
  run: {command: [visit.sh, `+content+`], `+run+`}
`)
	if c.file != "" {
		o.files.Deny(c.share, content+"/visit.sh", "")
	}
	path := o.lab.Address() + "/" + c.share + "/" + content + "/visit.sh"
	o.publishSpec(refs, fmt.Sprintf(`programs:
  needs: {command: [visit.sh, %[1]s-needs, %[2]s], %[3]s, references: [{url: "%[4]s/visit.sh"}]}
  tries: {command: [visit.sh, %[1]s-tries, %[2]s], %[3]s, references: [{url: "%[4]s", optional: true}]}
  shrugs: {command: [visit.sh, %[1]s-shrugs, %[2]s], %[3]s, references: [{url: "%[4]s", optional: true}], environment: [SHRUGS=yes]}
`, refs, path, run, o.files.Address(c.share, content)), "visit.sh")
}

func (o *outside) contentOf(machine string, c cell) string { return machine + "-" + c.name }

// denied goes through the cells of a machine: content, a reference that is needed, and one that the program misses while it
// runs, at which it fails or not.
func (s outsideStory) denied(t *testing.T, who identity.Who, log string, cells []cell, forgetful string) {
	kinds := map[string]string{}      // of failures, by what is told of them
	counts := map[events.Reason]int{} // of programs that met one
	for _, c := range cells {
		c.log, c.who = log, who
		content, refs := s.out.contentOf(s.m.Name, c), s.m.Name+"-refs-"+c.name
		file := s.out.files.Address(c.share, content+"/visit.sh")
		for _, at := range []struct {
			pkg, program, when string
			ran                bool
			end                events.State
		}{
			{content, "run", events.AccessContent, false, events.Failed}, {refs, "needs", events.AccessReference, false, events.Failed},
			{refs, "tries", events.AccessRun, true, events.Failed}, {refs, "shrugs", events.AccessRun, true, events.Succeeded},
		} {
			t.Run(c.name+" "+at.program, func(t *testing.T) {
				s := outsideStory{story{s.site, s.m.For(t)}, s.out}
				counts[c.reason]++
				deployment := s.deployOf(t, s.m, at.pkg, at.program)
				job := s.want(t, deployment, at.end)
				want := c.denial
				want.when, want.resource = at.when, file
				if at.ran && c.file == "" {
					want.resource = s.out.files.Address(c.share, content) // which is as far as the program gets
				}
				line := s.wantDenial(t, job, want)
				kind, told := string(c.reason)+c.code, s.plain(line, job, c)
				if other, there := kinds[told]; there && other != kind {
					t.Errorf("of %s and of %s one and the same is told: %s", kind, other, told)
				}
				kinds[told] = kind
				if ran := recordsOf(t, s.m, at.pkg+"-"+at.program); at.ran && (len(ran) != 1 || !strings.Contains(ran[0].first("refused"), "Permission denied")) || !at.ran && len(ran) != 0 {
					t.Errorf("what the program found: %v", ran)
				}
				s.out.wantOpened(t, c.share, content+"/visit.sh")
				if refused := s.out.files.Refused(c.share, content+"/visit.sh"); c.file != "" && !slices.Equal(refused, []string{c.account}) {
					t.Errorf("the file server refused the file to %q, not to %s alone", refused, c.account)
				}
				if c.name == "wrong" && at.end == events.Failed {
					s.wantTriedOnce(t, deployment, forgetful)
				}
			})
		}
	}
	s.wantCounted(t, who, counts)
}

var identifiers = regexp.MustCompile(`[a-z0-9]{32,}|[0-9]{2}:[0-9]{2}:[0-9]{2}`)

// plain is a line of the log without the names of what was tried and by whom.
func (s outsideStory) plain(line string, job events.JobStatus, c cell) string {
	for _, name := range []string{resource.Shown(job.Resource), s.out.files.Address(c.share, ""), resource.Shown(s.out.files.Address(c.share, "")), job.Deployment, c.account} {
		if name != "" {
			line = strings.ReplaceAll(line, name, "_")
		}
	}
	return identifiers.ReplaceAllString(line, "_")
}

// wantTriedOnce makes sure that the file server has seen the wrong secret once, also when the job is tried again.
func (s outsideStory) wantTriedOnce(t *testing.T, deployment, user string) {
	t.Helper()
	count := func() {
		t.Helper()
		if n := s.out.files.BadPasswords(user); n != 1 {
			t.Errorf("the file server has seen %d wrong secrets of %s", n, user)
		}
	}
	count()
	s.cli(t, "deployment", "retry", deployment)
	await(t, s.told, deployment+" has failed again", isStatus, func(list []events.JobStatus) (none struct{}, ok bool) {
		return none, slices.ContainsFunc(statuses(deployment, list), func(j events.JobStatus) bool { return j.Attempt == 2 && j.State == events.Failed })
	})
	count()
}

// publishOwn publishes what lies in a directory of the story's machine as its own.
func (s outsideStory) publishOwn(t *testing.T, pkg, dir string) {
	t.Helper()
	mounted, spec := t.TempDir(), filepath.Join(t.TempDir(), pkg)
	must(t, os.WriteFile(filepath.Join(mounted, "visit.sh"), visitOf(pkg), 0o755))
	must(t, os.MkdirAll(spec, 0o700))
	must(t, os.WriteFile(filepath.Join(spec, "package.yaml"), fmt.Appendf(nil, `api: chandler/v1
package: %s
version: "1.0"
source: file://%s
programs:
  visit: {command: [visit.sh, visit], run: user}
`, pkg, dir), 0o600))
	s.cli(t, "package", "publish", spec, "--source-dir", "file://"+dir+"="+mounted)
}
