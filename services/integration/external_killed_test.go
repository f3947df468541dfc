package integration

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"chandler/agent/identity"
	"chandler/events"
)

// readOnProgram is read-on.sh TAG LONG NEXT: it reads a part of one file below $CHANDLER_NET, and once there is no file
// hold-TAG the rest of it by what it has open, and then another file.
const readOnProgram = `#!/bin/sh
set -eu
tag=$1
exec 3< "$CHANDLER_NET/$2"
part=$(mktemp)
head -c 65536 <&3 > "$part"
: > ` + records + `/begun-"$tag"
while [ -e ` + records + `/hold-"$tag" ]; do sleep 0.1; done
record=$(mktemp ` + records + `/.XXXXXX)
{
	echo "uid=$(id -u)"
	env | sed 's/^/env./'
	echo "long=$(cat "$part" - <&3 | sha256sum)"
	echo "next=$(cat "$CHANDLER_NET/$3")"
} > "$record"
chmod 644 "$record"
mv "$record" "` + records + `/$tag.${record##*.}"
`

// longFile is more than whoever reads ahead has read when a program has read its beginning.
const longFile = 32 << 20

// publishReadOn publishes a machine's read-on.sh, whose two references are lent for apart.
func (o *outside) publishReadOn(machine string) (digest string) {
	o.t.Helper()
	long := make([]byte, longFile)
	_, _ = rand.Read(long) // it never fails
	pkg := machine + "-on"
	o.files.Write(software, pkg+"-long/file", long)
	o.files.Write(software, pkg+"-next/file", []byte("what comes next"))
	o.files.Write(software, pkg+"/read-on.sh", []byte(readOnProgram+"# "+pkg+"\n"))
	at, path := o.files.Address(software, pkg), o.lab.Address()+"/"+software+"/"+pkg
	refs := fmt.Sprintf(`references: [{url: "%[1]s-long", optional: true}, {url: "%[1]s-next", optional: true}]`, at)
	command := fmt.Sprintf(`command: [read-on.sh, %[2]s, %[1]s-long/file, %[1]s-next/file], run: administrative`, path, pkg)
	o.publishSpec(pkg, fmt.Sprintf(`source: %s
programs:
  system: {%[2]s, %[3]s}
  by-account: {%[2]s, %[3]s, installation-account: %[4]s}
`, at, command, refs, installerUser))
	return fmt.Sprintf("%x", sha256.Sum256(long))
}

// readsOn kills the agent while a program is in the middle of a file of the file server: it is found again by the next
// agent, reads on in what it has open, and what it opens afterwards is lent for through that agent.
func (s outsideStory) readsOn(t *testing.T, program string, want whose, who identity.Who, reader string) {
	t.Helper()
	pkg := s.m.Name + "-on"
	letGo := hold(t, s.m, pkg)
	defer letGo()
	deployment := s.deployOf(t, s.m, pkg, program)
	running := s.want(t, deployment, events.Running)
	eventually(t, "the program reads", func() bool { _, there := s.m.ReadFile(records + "/begun-" + pkg); return there })
	supervisors := s.pids("supervise")
	s.out.wantOpened(t, software, pkg+"-long/file", reader)
	s.out.wantOpened(t, software, pkg+"-next/file")
	before := s.lent(t, running.Job)
	s.m.Kill9(agentService)
	letGo()
	job := s.want(t, deployment, events.Succeeded)
	s.wantContext(t, job, want)
	if job.Job != running.Job || job.Attempt != 1 {
		t.Errorf("job %s of attempt %d is not the one that was running", job.Job, job.Attempt)
	}
	r := recordOf(t, s.m, pkg, job.Job)
	s.wantRanAs(t, r, want)
	if digest, _, _ := strings.Cut(r.first("long"), " "); digest != s.out.long[s.m.Name] || r.first("next") != "what comes next" {
		t.Errorf("it read %s and %q, not %s", r["long"], r["next"], s.out.long[s.m.Name])
	}
	if len(supervisors) != 1 {
		t.Errorf("%d supervisors had the program: %v", len(supervisors), supervisors)
	}
	for _, file := range []string{"long", "next"} {
		s.out.wantOpened(t, software, pkg+"-"+file+"/file", reader)
		wantAccess(t, job, s.out.read(pkg+"-"+file, who, reader, events.AccessRun))
	}
	next := s.out.files.Address(software, pkg+"-next")
	if slices.Contains(before, next) {
		t.Errorf("lent before the agent was killed were %q", before)
	}
	await(t, s.told, "an account was lent for "+next, func(name string) bool { return name == events.CredentialLeased.Name }, func(list []events.LeaseNotice) (none struct{}, ok bool) {
		return none, slices.ContainsFunc(list, func(n events.LeaseNotice) bool { return n.Job == job.Job && n.Resource == next })
	})
}

// pids are the machine's processes of the agent's program with this verb.
func (s story) pids(verb string) []string {
	return strings.Fields(s.m.Exec("sh", "-c", "pgrep -f '^[^ ]*chandler-agent "+verb+"' || true"))
}

// lent are the resources for which an account was lent for a job so far, by the credential service's word.
func (s *site) lent(t *testing.T, job string) (resources []string) {
	t.Helper()
	list, _ := read[events.LeaseNotice](t, s.told, func(name string) bool { return name == events.CredentialLeased.Name })
	for _, n := range list {
		if n.Job == job {
			resources = append(resources, n.Resource)
		}
	}
	return resources
}
