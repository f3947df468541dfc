package integration

import (
	"strings"
	"testing"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/services/integration/machinetest"
)

// TestWhatIsOutsideIsReadByWhomItShouldBe holds the columns of the table of who reads and who executes that are about
// external sources against a real file server and whole machines, one for each kind of client. Who opened a file is told by
// the file server, who ran a program by the program.
func TestWhatIsOutsideIsReadByWhomItShouldBe(t *testing.T) {
	o := newOutside(t, "read-by-whom")
	o.publishReadable(t)
	machines := []*machinetest.Machine{o.newMachine("advanced"), o.newMachine("legacy", "--client-kind", "legacy"),
		o.newMachine("controller", "--client-kind", "legacy", "--domain-controller")}
	machines[2].Exec("useradd", "--shell", "/usr/sbin/nologin", domainToken)
	for i, tell := range []func(*testing.T, outsideStory){advancedOutside, legacyOutside, controllerOutside} {
		t.Run(machines[i].Name, func(t *testing.T) {
			t.Parallel()
			m := machines[i].For(t)
			defer explain(t, m)
			tell(t, outsideStory{story{o.site, m}, o})
		})
	}
}

// outsideStory is a story of a machine that reads from the file server.
type outsideStory struct {
	story
	out *outside
}

func (s outsideStory) part(t *testing.T, name string, part func(t *testing.T, s outsideStory)) {
	t.Run(name, func(t *testing.T) {
		part(t, outsideStory{story{s.site, s.m.For(t)}, s.out})
	})
}

// publishReadable publishes what may be read: for each machine a package of its own, so that the file server's log tells which
// machine's account opened what, and references in a file of their own for each program.
func (o *outside) publishReadable(t *testing.T) {
	tool, hello := buildDeb(t, "probe-tool", toolFiles), downloadHello(t)
	for _, machine := range []string{"advanced", "legacy", "controller"} {
		o.long[machine] = o.publishReadOn(machine)
		o.onShare(software, machine+"-tool", `programs:
  system: {command: [dpkg, -i, probe-tool_1.0_all.deb], run: administrative, detect: [{dpkg: probe-tool}]}
  hello: {command: [dpkg, -i, hello.deb], run: administrative, detect: [{dpkg: hello}]}
  by-account: {command: [dpkg, -i, probe-tool_1.0_all.deb], run: administrative, installation-account: `+installerUser+`, detect: [{dpkg: probe-tool}]}
  hello-by-account: {command: [dpkg, -i, hello.deb], run: administrative, installation-account: `+installerUser+`, detect: [{dpkg: hello}]}
`, tool, hello)
		setup := o.shown(software, machine+"-setup", "setup.sh")
		o.files.Write(software, machine+"-setup/setup.sh", visitOf(machine+"-setup"))
		o.publishSpec(machine+"-setup", `programs:
  system: {command: ['`+setup+`', setup], run: administrative}
  by-account: {command: ['`+setup+`', setup], run: administrative, installation-account: `+installerUser+`}
`)
		o.onShare(software, machine+"-user", "programs:\n  visit: {command: [visit.sh, by-ticket], run: user}\n")
		for _, program := range []string{"system", "by-account", "optional"} {
			o.files.Write(software, machine+"-refs/"+program, []byte("what "+program+" refers to"))
		}
		refs := o.files.Address(software, machine+"-refs")
		path := o.lab.Address() + "/" + software + "/" + machine + "-refs/"
		o.publishSpec(machine+"-refs", `programs:
  system: {command: [visit.sh, refs, `+path+`system], run: administrative, references: [{url: "`+refs+`/system"}]}
  by-account: {command: [visit.sh, refs, `+path+`by-account], run: administrative, installation-account: `+installerUser+`, references: [{url: "`+refs+`/by-account"}]}
  optional: {command: [visit.sh, refs, `+path+`optional], run: administrative, references: [{url: "`+refs+`", optional: true}]}
`, "visit.sh")
	}
}

// read is the access to a resource that was read.
func (o *outside) read(path string, who identity.Who, user, when string) events.Access {
	return events.Access{Resource: o.files.Address(software, path), Identity: string(who), Account: user, User: user, When: when}
}

func advancedOutside(t *testing.T, s outsideStory) {
	reads := whose{string(identity.NetworkAccess), "root", "", advancedLog}
	s.part(t, "the network access account reads packages, the system installs them", func(t *testing.T, s outsideStory) {
		s.installsFrom(t, "system", "hello", reads, readerUser)
	})
	s.part(t, "the command itself is an external reference", func(t *testing.T, s outsideStory) {
		s.setsUp(t, "system", reads, readerUser)
	})
	s.part(t, "references are read by the network access account while the system's program runs", func(t *testing.T, s outsideStory) {
		s.refers(t, "system", "system", whose{"agent", "root", "", advancedLog}, identity.NetworkAccess, readerUser)
		s.refers(t, "optional", "optional", whose{"agent", "root", "", advancedLog}, identity.NetworkAccess, readerUser)
	})
	s.part(t, "a program reads on when its agent is killed", func(t *testing.T, s outsideStory) {
		s.readsOn(t, "system", reads, identity.NetworkAccess, readerUser)
	})
	s.part(t, "an installation account is ignored", func(t *testing.T, s outsideStory) {
		job := s.refers(t, "by-account", "by-account", whose{"agent", "root", "", advancedLog}, identity.NetworkAccess, readerUser)
		wantIgnored(t, s.story, job)
	})
	s.part(t, "a user's program and its content are the user's own to read", userOutside)
}

func legacyOutside(t *testing.T, s outsideStory) {
	s.byInstallationAccount(t)
	s.part(t, "the client token account is nobody on the network", func(t *testing.T, s outsideStory) { s.nobodyOutside(t) })
	s.part(t, "a user's program and its content are the user's own to read", userOutside)
}

func controllerOutside(t *testing.T, s outsideStory) {
	s.byInstallationAccount(t)
	s.part(t, "the domain's copy of the client token account is nobody on the network", func(t *testing.T, s outsideStory) { s.nobodyOutside(t) })
}

// byInstallationAccount is the same on every legacy client.
func (s outsideStory) byInstallationAccount(t *testing.T) {
	runs := whose{string(identity.Installation), installerUser, "root", legacyLog}
	s.part(t, "the installation account reads packages and installs them", func(t *testing.T, s outsideStory) {
		s.installsFrom(t, "by-account", "hello-by-account", runs, installerUser)
	})
	s.part(t, "the command itself is an external reference", func(t *testing.T, s outsideStory) {
		s.setsUp(t, "by-account", runs, installerUser)
	})
	s.part(t, "references are read by the installation account while its program runs", func(t *testing.T, s outsideStory) {
		s.refers(t, "by-account", "by-account", whose{"agent", installerUser, "root", legacyLog}, identity.Installation, installerUser)
	})
	s.part(t, "a program reads on when its agent is killed", func(t *testing.T, s outsideStory) {
		s.readsOn(t, "by-account", runs, identity.Installation, installerUser)
	})
}

// installsFrom installs real packages from the share, and makes sure by whose word.
func (s outsideStory) installsFrom(t *testing.T, tool, hello string, want whose, reader string) {
	t.Helper()
	pkg := s.m.Name + "-tool"
	job := s.want(t, s.deployOf(t, s.m, pkg, tool), events.Succeeded)
	s.wantContext(t, job, want)
	by := ""
	if want.elevatedTo != "" {
		by = uidOf(s.m, want.executor)
	}
	if r := recordOf(t, s.m, "postinst", job.Job); r.first("uid") != "0" || r.env("SUDO_UID") != by {
		t.Errorf("the package's script ran as %s, SUDO_UID %q, want %q", r.first("uid"), r.env("SUDO_UID"), by)
	}
	if got := s.m.Exec("probe-tool"); got != "tool" {
		t.Errorf("the installed program says %q", got)
	}
	s.wantContext(t, s.want(t, s.deployOf(t, s.m, pkg, hello), events.Succeeded), want)
	if got := s.m.Exec("hello"); got != "Hello, world!" {
		t.Errorf("hello says %q", got)
	}
	s.out.wantOpened(t, software, pkg+"/hello.deb", reader)
	s.out.wantOpened(t, software, pkg+"/probe-tool_1.0_all.deb", reader)
	wantAccess(t, job, s.out.read(pkg, identity.Who(want.reader), reader, events.AccessContent))
}

// setsUp runs a program of the share itself.
func (s outsideStory) setsUp(t *testing.T, program string, want whose, reader string) {
	t.Helper()
	pkg := s.m.Name + "-setup"
	job := s.want(t, s.deployOf(t, s.m, pkg, program), events.Succeeded)
	s.wantContext(t, job, want)
	s.wantRanAs(t, recordOf(t, s.m, "setup", job.Job), want)
	s.out.wantOpened(t, software, pkg+"/setup.sh", reader)
	wantAccess(t, job, s.out.read(pkg+"/setup.sh", identity.Who(want.reader), reader, events.AccessContent))
}

// wantRanAs makes sure that a program had root's rights, by way of an account where it was elevated.
func (s outsideStory) wantRanAs(t *testing.T, r record, want whose) {
	t.Helper()
	by := ""
	if want.elevatedTo != "" {
		by = uidOf(s.m, want.executor)
	}
	if r.first("uid") != "0" || r.env("SUDO_UID") != by {
		t.Errorf("the program ran as %s by way of %q; want root, by way of %q", r.first("uid"), r.env("SUDO_UID"), by)
	}
}

// refers runs a program that reads a reference while it runs. The mount is gone with it, and was never to be written to.
func (s outsideStory) refers(t *testing.T, program, file string, want whose, who identity.Who, reader string) events.JobStatus {
	t.Helper()
	pkg := s.m.Name + "-refs"
	job := s.want(t, s.deployOf(t, s.m, pkg, program), events.Succeeded)
	s.wantContext(t, job, want)
	r := recordOf(t, s.m, "refs", job.Job)
	s.wantRanAs(t, r, want)
	path := s.lab.Address() + "/" + software + "/" + pkg + "/" + file
	if len(r["read"]) != 1 || r.first("read") != path+": what "+file+" refers to" || len(r["writes"]) != 0 {
		t.Errorf("it read %q, was refused %q and wrote %q", r["read"], r["refused"], r["writes"])
	}
	if mount := r.first("mount"); !strings.Contains(mount, "fuse") || !strings.Contains(mount, "ro,") {
		t.Errorf("what it refers to is mounted as %q", r["mount"])
	}
	if left := s.m.Exec("cat", "/proc/mounts"); strings.Contains(left, r.env("CHANDLER_NET")) {
		t.Errorf("the machine itself has %s mounted:\n%s", r.env("CHANDLER_NET"), left)
	}
	s.out.wantOpened(t, software, pkg+"/"+file, reader)
	at := pkg + "/" + file
	if program == "optional" {
		at = pkg // that is what the order names
	}
	wantAccess(t, job, s.out.read(at, who, reader, events.AccessRun))
	return job
}

// nobodyOutside makes sure that whoever has no identity on the network reads nothing there and is not helped.
func (s outsideStory) nobodyOutside(t *testing.T) {
	t.Helper()
	for _, c := range []struct{ pkg, program, file, when string }{
		{s.m.Name + "-setup", "system", "setup.sh", events.AccessContent},
		{s.m.Name + "-refs", "system", "system", events.AccessReference},
	} {
		before := s.out.files.Readers(software, c.pkg+"/"+c.file)
		job := s.want(t, s.deployOf(t, s.m, c.pkg, c.program), events.Failed)
		if job.Reason != events.NoNetworkIdentity || job.Executor != "" || !strings.Contains(job.Explanation, "installation-account") {
			t.Errorf("%s: ended as %s", c.pkg, compact(job))
		}
		if after := s.out.files.Readers(software, c.pkg+"/"+c.file); len(after) != len(before) {
			t.Errorf("%s was opened by %q", c.file, after)
		}
		s.wantDenial(t, job, denial{reason: events.NoNetworkIdentity, when: c.when, resource: s.out.files.Address(software, c.pkg+"/"+c.file), log: legacyLog})
	}
}

// userOutside is about a folder of the machine's own that only its user may read, and about the share, where the
// user has no means of its own: nobody lends a user an account.
func userOutside(t *testing.T, s outsideStory) {
	log := advancedLog
	if s.m.Name != "advanced" {
		log = legacyLog
	}
	s.m.Login("alice")
	job := s.want(t, s.deployOf(t, s.m, s.ownFolder(t, "alice"), "visit"), events.Succeeded)
	s.wantContext(t, job, whose{string(identity.User), "alice", "", log})
	if r := recordOf(t, s.m, "visit", job.Job); r.first("user") != "alice" {
		t.Errorf("it ran as %s", r.first("user"))
	}
	job = s.want(t, s.deployOf(t, s.m, s.ownFolder(t, "root"), "visit"), events.Failed)
	if job.Reason != events.NetworkAccessDenied || job.Identity != string(identity.User) || job.Executor != "" {
		t.Errorf("what only root may read ended as %s", compact(job))
	}
	if ran := recordsOf(t, s.m, "visit"); len(ran) != 1 {
		t.Errorf("what could not be read has run: %v", ran)
	}
	s.wantDenial(t, job, denial{reason: events.NetworkAccessDenied, who: identity.User, when: events.AccessContent, code: "(5/0x80070005)", resource: "file:///srv/" + s.m.Name + "-root/visit.sh", log: log})
	s.userWithoutTicket(t, log)
}

// userWithoutTicket is one whom the file server would know by a ticket alone.
func (s outsideStory) userWithoutTicket(t *testing.T, log string) {
	t.Helper()
	pkg := s.m.Name + "-user"
	job := s.want(t, s.deployOf(t, s.m, pkg, "visit"), events.Failed)
	if job.Reason != events.NoNetworkIdentity || job.Executor != "" {
		t.Errorf("a user without a ticket ended as %s", compact(job))
	}
	s.wantDenial(t, job, denial{reason: events.NoNetworkIdentity, who: identity.User, when: events.AccessContent, resource: s.out.files.Address(software, pkg+"/visit.sh"), log: log})
	s.out.wantOpened(t, software, pkg+"/visit.sh")
}

// ownFolder publishes a package that lies on the machine's own disk, where one user alone may read it.
func (s outsideStory) ownFolder(t *testing.T, owner string) (pkg string) {
	t.Helper()
	pkg = s.m.Name + "-" + owner
	s.m.WriteFile("/srv/"+pkg+"/visit.sh", visitOf(pkg), 0o500)
	s.m.Exec("chown", owner, "/srv/"+pkg+"/visit.sh")
	s.publishOwn(t, pkg, "/srv/"+pkg)
	return pkg
}
