package integration

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"chandler/events"
	"chandler/services/integration/machinetest"
)

// roughPackage is of programs as they should not be, and of one with a name and arguments as they seldom are.
const roughPackage = `api: chandler/v1
package: %s
version: "1.0"
programs:
  forks: {command: [forks.sh], run: administrative}
  lasts: {command: [lasts.sh], run: administrative, max-run-time: 3s}
  asks: {command: [asks.sh], run: administrative, max-run-time: 1m}
  question: {command: [dpkg, -i, probe-question_1.0_all.deb], run: administrative, max-run-time: 1m}
  floods: {command: [floods.sh], run: administrative, max-run-time: 2m}
  odd: {command: ["Übung mit Zählern/shöw %%n 'it'.sh", ` + oddArguments + `], run: administrative, working-directory: "Übung mit Zählern", environment: ["GREETING=grüß %%n \"x\" \\ $HOME"]}
  odd-as-user: {command: ["Übung mit Zählern/shöw %%n 'it'.sh", ` + oddArguments + `], run: user, working-directory: "Übung mit Zählern", environment: ["GREETING=grüß %%n \"x\" \\ $HOME"]}
  tab: {command: ["Übung mit Zählern/shöw %%n 'it'.sh", "a\tb"], run: administrative, working-directory: "Übung mit Zählern"}
  odd-line: {command: "'Übung mit Zählern/shöw %%n '\\''it'\\''.sh' %%n 'two words' \"it's\"", run: administrative, working-directory: "Übung mit Zählern"}
`

// oddArguments are a part of YAML; odd is what they are.
const oddArguments = `"%%n %%s %%%%", "two words", "", "say \"yes\"", "it's", "a\\b\\", "$HOME $(id) ` + "`id`" + `", "*", "ä ö ü 日本", "-x=1,2:3", "#!", " "`

var odd = []string{"%n %s %%", "two words", "", `say "yes"`, "it's", `a\b\`, "$HOME $(id) `id`", "*", "ä ö ü 日本", "-x=1,2:3", "#!", " "}

var roughFiles = map[string]string{
	"forks.sh": "#!/bin/sh\nsetsid sleep 7001 &\necho forked\n",
	// Nothing of it ends by itself or because it is asked to.
	"lasts.sh": "#!/bin/sh\ntrap '' TERM INT HUP\nsetsid sleep 7002 &\n(setsid sh -c 'trap \"\" TERM; sleep 7002; sleep 7002') &\n: > " + records + "/lasts\nsleep 7002\nsleep 7002\n",
	"asks.sh": `#!/bin/sh
echo "Go on?"
if read -r answer; then echo "somebody answers $answer"; exit 3; fi
if ( : < /dev/tty ) 2> /dev/null; then echo "there is a terminal"; exit 4; fi
`,
	"floods.sh": "#!/bin/sh\nhead -c 2147483648 /dev/zero\necho\n: > " + records + "/flooded\nwhile [ -e " + records + "/hold-floods ]; do sleep 0.1; done\necho the end\n",
	"Übung mit Zählern/shöw %n 'it'.sh": `#!/bin/sh
record=$(mktemp ` + records + `/.XXXXXX)
printf '%s\0' "$PWD" "$GREETING" "$@" > "$record"
chmod 644 "$record"
mv "$record" "` + records + `/odd-$CHANDLER_JOB"
`,
}

// questionFiles are of a Debian package that asks by debconf before it is configured.
var questionFiles = map[string]debFile{
	"DEBIAN/templates": {"Template: probe-question/answer\nType: string\nDefault: nobody\nDescription: Who is there?\n Somebody must say so.\n", 0o644},
	"DEBIAN/postinst":  {"#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_input critical probe-question/answer || true\ndb_go || true\ndb_get probe-question/answer\necho \"$RET\" > /var/lib/probe-answer\n", 0o755},
}

// TestContextsThatAreNotAsTheyShouldBe is about machines that lack what elevation needs, accounts that change under
// the agent, and programs that misbehave with the rights that they got.
func TestContextsThatAreNotAsTheyShouldBe(t *testing.T) {
	s := newSite(t)
	s.publishProbes()
	s.publish("rough", roughPackage, roughFiles, buildDeb(t, "probe-question", questionFiles), buildDeb(t, "probe-tool", toolFiles))
	lacking := s.newMachine("lacking", "--client-kind", "legacy")
	legacy := s.newMachine("legacy", "--client-kind", "legacy")
	advanced := s.newMachine("advanced")
	for _, c := range []struct {
		machine *machinetest.Machine
		story   func(*testing.T, story)
	}{{lacking, lackingMachine}, {legacy, roughLegacy}, {advanced, roughAdvanced}} {
		t.Run(c.machine.Name, func(t *testing.T) {
			t.Parallel()
			m := c.machine.For(t)
			defer explain(t, m)
			c.story(t, story{s, m})
		})
	}
}

// lackingMachine is one where something is missing, or not what it was.
func lackingMachine(t *testing.T, s story) {
	s.m.AddUser("corpinstaller")
	s.part(t, "useradd is missing", func(t *testing.T, s story) { s.without(t, "/usr/sbin/useradd") })
	s.part(t, "sudo is missing", func(t *testing.T, s story) { s.without(t, "/usr/bin/sudo") })
	s.part(t, "the client token account's name is somebody else's", nameIsTaken)
	s.part(t, "the client token account is deleted while its program runs", tokenDeleted)
	s.part(t, "the installation account is disabled while its program runs", func(t *testing.T, s story) {
		s.installerMeanwhile(t, "disabled", "usermod", "--lock", "--expiredate", "1", "corpinstaller")
		s.m.Exec("usermod", "--expiredate", "", "corpinstaller") // as it was: it never had a password
	})
	s.part(t, "the installation account is deleted while its program runs", func(t *testing.T, s story) {
		s.installerMeanwhile(t, "deleted", "userdel", "--force", "corpinstaller")
	})
}

// without runs a program while the machine lacks one of its own, and again when it is back.
func (s story) without(t *testing.T, path string) {
	t.Helper()
	name := path[strings.LastIndexByte(path, '/')+1:]
	before := rules(s.m)
	s.m.Exec("mv", path, path+".away")
	job := s.want(t, s.deploy(t, s.m, "as-administrator", "no-"+name), events.Failed)
	s.m.Exec("mv", path+".away", path)
	if job.Reason != events.ElevationImpossible || !strings.Contains(job.Explanation, name) || job.Identity != clientToken {
		t.Errorf("without %s it ended as %s", name, compact(job))
	}
	if after := rules(s.m); after != before {
		t.Errorf("sudoers.d held %q before and holds %q after", before, after)
	}
	s.want(t, s.deploy(t, s.m, "as-administrator", "with-"+name), events.Succeeded)
}

func nameIsTaken(t *testing.T, s story) {
	s.m.Exec("userdel", clientToken)
	s.m.Exec("useradd", "--groups", "sudo", clientToken)
	job := s.want(t, s.deploy(t, s.m, "as-administrator", "taken"), events.Failed)
	if job.Reason != events.AccountUnusable || !strings.Contains(job.Explanation, clientToken) {
		t.Errorf("by somebody else's account it ended as %s", compact(job))
	}
	if groups := s.m.Exec("id", "-Gn", clientToken); !strings.HasSuffix(groups, " sudo") {
		t.Errorf("the account that is not the agent's was changed: it is in %s", groups)
	}
	s.m.Exec("userdel", clientToken)
	s.want(t, s.deploy(t, s.m, "as-administrator", "free"), events.Succeeded)
}

// whileElevated starts a program that is elevated, does something, and lets the program end, which is well.
func (s story) whileElevated(t *testing.T, program, account, name string, do ...string) {
	t.Helper()
	before := rules(s.m)
	letGo := hold(t, s.m, program)
	defer letGo()
	deployment := s.deploy(t, s.m, program, name)
	running := s.want(t, deployment, events.Running)
	wantElevated(t, s.m, recordOf(t, s.m, program, running.Job), account)
	s.m.Exec(do...)
	letGo()
	s.wantContext(t, s.want(t, deployment, events.Succeeded), whose{"agent", account, "root", legacyLog})
	s.notes(t, events.AgentAccountReturned, account, running.Job, 1)
	if after := rules(s.m); after != before {
		t.Errorf("sudoers.d held %q before and holds %q after", before, after)
	}
}

func tokenDeleted(t *testing.T, s story) {
	made := len(s.notesOf(t, events.AgentAccountCreated, clientToken))
	s.whileElevated(t, "as-administrator", clientToken, "deleted", "userdel", "--force", clientToken)
	s.elevatedRun(t, "as-administrator", clientToken, "client-token", "made-again")
	if now := len(s.notesOf(t, events.AgentAccountCreated, clientToken)); now != made+1 {
		t.Errorf("it was told %d times that the account was made, and %d times before", now, made)
	}
}

func (s story) installerMeanwhile(t *testing.T, name string, do ...string) {
	t.Helper()
	s.whileElevated(t, "by-account", "corpinstaller", name, do...)
	job := s.want(t, s.deploy(t, s.m, "by-account", name, "after"), events.Failed)
	if job.Reason != events.AccountUnusable || !strings.Contains(job.Explanation, "corpinstaller") {
		t.Errorf("by an account that is %s it ended as %s", name, compact(job))
	}
}

func roughLegacy(t *testing.T, s story) {
	s.m.AddUser("alice")
	s.m.AddUser("corpinstaller")
	s.part(t, "a program hangs, and others run", hangs)
	s.roughPrograms(t, whose{"agent", clientToken, "root", legacyLog})
	s.part(t, "an argument that no rule of sudo can hold", func(t *testing.T, s story) {
		job := s.want(t, s.deployOf(t, s.m, "rough", "tab"), events.Failed)
		if _, ran := s.m.ReadFile(records + "/odd-" + job.Job); ran || job.Reason != events.ElevationImpossible || !strings.Contains(job.Explanation, "control character") {
			t.Errorf("it ran: %t; it ended as %s", ran, compact(job))
		}
		wantRefused(t, s.m, clientToken)
	})
}

func roughAdvanced(t *testing.T, s story) {
	s.m.AddUser("alice")
	s.part(t, "somebody else's dpkg is at work", dpkgIsBusy)
	s.roughPrograms(t, whose{"agent", "root", "", advancedLog})
	s.part(t, "an argument that no rule of sudo could hold, where none is needed", func(t *testing.T, s story) {
		s.oddRun(t, "tab", whose{"agent", "root", "", advancedLog}, "", []string{"a\tb"})
	})
	s.part(t, "odd names and arguments of a user's program", func(t *testing.T, s story) {
		s.m.Login("alice")
		s.oddRun(t, "odd-as-user", whose{"agent", "alice", "", advancedLog}, `grüß %n "x" \ $HOME`, odd)
	})
}

// hangs makes sure that whoever waits for a program that hangs says so, and nobody else waits.
func hangs(t *testing.T, s story) {
	letGo := hold(t, s.m, "as-administrator")
	defer letGo()
	hung, behind := s.deploy(t, s.m, "as-administrator"), s.deployOf(t, s.m, "aside", "as-administrator")
	s.want(t, hung, events.Running)
	s.want(t, behind, events.Waiting, events.WaitSlot)
	s.want(t, s.deploy(t, s.m, "by-account"), events.Succeeded)
	s.m.Login("alice")
	s.userRan(t, s.want(t, s.deploy(t, s.m, "as-user"), events.Succeeded), "alice", legacyLog)
	if now := s.state(t, hung); now.State != events.Running {
		t.Errorf("what hangs is %s", compact(now))
	}
	if now := s.state(t, behind); now.State != events.Waiting || now.WaitingFor != events.WaitSlot {
		t.Errorf("a second program by the same account is %s", compact(now))
	}
	letGo()
	s.want(t, hung, events.Succeeded)
	s.want(t, behind, events.Succeeded)
}

// dpkgIsBusy has an administrator's dpkg hold its lock.
func dpkgIsBusy(t *testing.T, s story) {
	letGo := hold(t, s.m, "postinst")
	defer letGo()
	s.m.CopyIn(buildDeb(t, "probe-tool", toolFiles), "/root/probe-tool.deb", 0o644)
	s.m.Exec("systemd-run", "--quiet", "--collect", "--unit=by-hand", "--setenv=HOME=/root", "--setenv=TMPDIR=/tmp", "--setenv=CHANDLER_PACKAGE=/tmp", "dpkg", "-i", "/root/probe-tool.deb")
	eventually(t, "dpkg is in the middle of it", func() bool { return len(recordsOf(t, s.m, "postinst")) > 0 })
	deployment := s.deploy(t, s.m, "hello")
	if job := s.want(t, deployment, events.Waiting, events.WaitSlot); !strings.Contains(job.Explanation, "dpkg") {
		t.Errorf("it waits because %s", job.Explanation)
	}
	s.want(t, s.deploy(t, s.m, "as-administrator", "beside-dpkg"), events.Succeeded)
	if now := s.state(t, deployment); now.State != events.Waiting {
		t.Errorf("while dpkg's lock is held it is %s", compact(now))
	}
	letGo()
	s.want(t, deployment, events.Succeeded)
	for _, pkg := range []string{"hello", "probe-tool"} {
		if got := s.m.Exec("dpkg-query", "--show", "--showformat=${Status}", pkg); got != "install ok installed" {
			t.Errorf("%s is %s", pkg, got)
		}
	}
}

// roughPrograms misbehave as one and the same.
func (s story) roughPrograms(t *testing.T, want whose) {
	deploy := func(t *testing.T, s story, program string, state events.State) events.JobStatus {
		t.Helper()
		job := s.want(t, s.deployOf(t, s.m, "rough", program), state)
		if job.Executor != want.executor || job.ElevatedTo != want.elevatedTo {
			t.Errorf("%s: run by %q elevated to %q", program, job.Executor, job.ElevatedTo)
		}
		if want.elevatedTo != "" {
			s.wantRaised(t, job, want.executor, "client-token")
			wantRefused(t, s.m, want.executor)
		}
		return job
	}
	s.part(t, "a program forks and exits", func(t *testing.T, s story) {
		deploy(t, s, "forks", events.Succeeded)
		s.m.Exec("pkill", "-f", "^sleep 7001$") // what it left behind lives on, and is there
	})
	s.part(t, "a program ignores everything that asks it to end", func(t *testing.T, s story) {
		if job := deploy(t, s, "lasts", events.Failed); job.Reason != events.RunTimeExceeded {
			t.Errorf("it ended as %s", compact(job))
		}
		if _, ran := s.m.ReadFile(records + "/lasts"); !ran || run(s.m, "pgrep", "-f", "sleep 7002") {
			t.Errorf("it started: %t; of it are left %s", ran, s.m.Exec("sh", "-c", "pgrep -af 'sleep 7002' || true"))
		}
	})
	s.part(t, "a program reads its input and looks for a terminal", func(t *testing.T, s story) { deploy(t, s, "asks", events.Succeeded) })
	s.part(t, "a package asks by debconf", func(t *testing.T, s story) {
		deploy(t, s, "question", events.Succeeded)
		if got := s.m.Exec("cat", "/var/lib/probe-answer"); got != "nobody" {
			t.Errorf("the answer was %q", got)
		}
	})
	s.part(t, "a program writes two gigabytes", func(t *testing.T, s story) { floods(t, s) })
	s.part(t, "odd names and arguments", func(t *testing.T, s story) {
		s.oddRun(t, "odd", want, `grüß %n "x" \ $HOME`, odd)
		s.oddRun(t, "odd-line", want, "", []string{"%n", "two words", "it's"})
	})
}

// floods looks at what is kept of the output while it is all there, and at the log afterwards.
func floods(t *testing.T, s story) {
	letGo := hold(t, s.m, "floods")
	defer letGo()
	used := func() int {
		kib, err := strconv.Atoi(strings.Fields(s.m.Exec("du", "-sk", "/var/lib/chandler-agent"))[0])
		must(t, err)
		return kib
	}
	before := used()
	deployment := s.deployOf(t, s.m, "rough", "floods")
	eventually(t, "all is written", func() bool { _, done := s.m.ReadFile(records + "/flooded"); return done })
	if more := used() - before; more < 64 || more > 8<<10 {
		t.Errorf("of 2 GiB of output %d KiB are kept", more)
	}
	letGo()
	if job := s.want(t, deployment, events.Succeeded); job.ExitCode == nil || *job.ExitCode != 0 {
		t.Errorf("it ended as %s", compact(job))
	}
	file := advancedLog
	if _, legacy := s.m.ReadFile(jobLogs + legacyLog); legacy {
		file = legacyLog
	}
	wantLogged(t, s.m, file, "the end")
	if more := used() - before; more > 8<<10 {
		t.Errorf("afterwards %d KiB more are kept", more)
	}
}

// oddRun holds what a program got against what it was to get.
func (s story) oddRun(t *testing.T, program string, want whose, greeting string, arguments []string) {
	t.Helper()
	job := s.want(t, s.deployOf(t, s.m, "rough", program), events.Succeeded)
	s.wantContext(t, job, want)
	data, _ := s.m.ReadFile(records + "/odd-" + job.Job)
	got := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	if !strings.HasSuffix(got[0], "/content/Übung mit Zählern") || !slices.Equal(got[1:], append([]string{greeting}, arguments...)) {
		t.Errorf("%s got %q", program, got)
	}
}
