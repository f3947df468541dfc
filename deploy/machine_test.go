package deploy_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"chandler/services/integration/machinetest"
)

// brokerVariable turns the test's program into a broker with a configuration file.
const brokerVariable = "CHANDLER_DEPLOY_BROKER"

func TestMain(m *testing.M) {
	if config := os.Getenv(brokerVariable); config != "" {
		if err := runBroker(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runBroker(config string) error {
	o, err := natsserver.ProcessConfigFile(config)
	if err != nil {
		return err
	}
	o.NoSigs = true
	s, err := natsserver.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("the broker does not listen on %s", o.Host)
	}
	fmt.Println("ready")
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	<-interrupted
	s.Shutdown()
	return nil
}

// serverWithAgent boots a machine whose server is started by its unit, does what README.md says of a new fleet,
// and makes the machine an agent.
func serverWithAgent(t *testing.T) *machinetest.Machine {
	t.Helper()
	m := machinetest.NewLab(t).Start("oslo")
	install(t, m, programs(t))
	m.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n"+m.Address+" oslo\n"), 0o644) // as the names of a real network
	m.Exec("systemctl", "start", "chandler")
	const administrator = "/var/lib/chandler/administrator"
	eventually(t, "the server answers", func() error {
		return run(m, append([]string{"env", "XDG_CONFIG_HOME=/var/lib/chandler/config"}, chandler("doctor", "-o", "json")...)...)
	})
	m.Exec("cp", "--recursive", administrator, "/var/lib/chandler/tls/ca.pem", "/root/")
	m.Exec("rm", "--recursive", administrator)
	m.Exec(chandler("context", "add", "oslo", "--server", "tls://oslo:4222", "--ca", "/root/ca.pem", "--data", "/var/lib/chandler",
		"--administrator", "/root/administrator", "--credentials", "/root/administrator/admin.creds")...)
	m.Exec(chandler("trust", "init")...)
	m.Exec(chandler("token", "create", "--out", "/root/chandler.token")...)
	installAgent(t, m)
	eventually(t, "the agent has reported", func() error {
		out, err := m.Command(chandler("agent", "ls", "-o", "name")...).CombinedOutput()
		if err != nil || len(strings.TrimSpace(string(out))) == 0 {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	m.Exec(chandler("collection", "set", "everybody", "--where", "true")...)
	return m
}

// installAgent makes the machine an agent by the command that token create shows, from a copy of the program
// that was carried there.
func installAgent(t *testing.T, m *machinetest.Machine) string {
	t.Helper()
	return m.Exec("/root/chandler-agent", "install", "--token-file", "/root/chandler.token")
}

func TestAMachineThatIsInstalledAgainIsLeftAlone(t *testing.T) {
	m := serverWithAgent(t)
	show := []string{"systemctl", "show", "--property=MainPID,ActiveState,UnitFileState", "chandler-agent"}
	before, agents := m.Exec(show...), m.Exec(chandler("agent", "ls", "-o", "name")...)
	if !strings.Contains(before, "ActiveState=active") || !strings.Contains(before, "UnitFileState=enabled") {
		t.Errorf("the agent's unit is %s", before)
	}
	if said := installAgent(t, m); !strings.Contains(said, "installed before: nothing changed") { // the token is used up
		t.Errorf("it says %s", said)
	}
	if after := m.Exec(show...); after != before {
		t.Errorf("the agent's unit was %s and is %s", before, after)
	}
	if after := m.Exec(chandler("agent", "ls", "-o", "name")...); after != agents {
		t.Errorf("agents were %s and are %s", agents, after)
	}
	if got := m.Exec("cat", "/etc/systemd/system/chandler-agent.service"); got != strings.TrimSuffix(readText(t, "systemd/chandler-agent.service"), "\n") {
		t.Errorf("the unit that was installed is not the one here:\n%s", got)
	}
}

func TestAServerGoesOnWithoutTheKeysThatWereTakenAway(t *testing.T) {
	m := serverWithAgent(t)
	well := func() error { return run(m, chandler("doctor", "-o", "json")...) }
	m.Exec("systemctl", "restart", "chandler")
	eventually(t, "the server answers", well)
	m.Exec("sh", "-c", "rm /root/.config/chandler/trust/oslo/root-*.key") // as if they were in safes
	if out := m.Exec(chandler("doctor")...); strings.Contains(out, "problem") || strings.Contains(out, "warning") || !strings.Contains(out, "none takes clear text") {
		t.Errorf("doctor says\n%s", out)
	}
	m.Exec(chandler("user", "add", "vera", "--role", "viewer", "--out", "/root/vera.creds")...)

	// A further name needs the authority's key for one start.
	_, start, _ := strings.Cut(readText(t, "systemd/chandler.service"), "\nExecStart=")
	start, _, _ = strings.Cut(start, "\n")
	m.WriteFile("/etc/systemd/system/chandler.service.d/name.conf", []byte("[Service]\nExecStart=\nExecStart="+start+" --tls-name files.example\n"), 0o644)
	m.Exec("systemctl", "daemon-reload")
	m.Exec("sh", "-euc", `cd /var/lib/chandler; own=$(stat -Lc %u .)
		install -d -m 700 -o $own administrator; install -m 600 -o $own /root/administrator/ca.key administrator/
		systemctl restart chandler`)
	eventually(t, "the server answers", well)
	m.Exec("rm", "--recursive", "/var/lib/chandler/administrator")
	m.Exec("sh", "-euc", "echo "+m.Address+" files.example >> /etc/hosts")
	m.Exec(chandler("context", "add", "oslo", "--server", "tls://files.example:4222")...)
	m.Exec(chandler("agent", "ls")...)
}

func TestTheServersUnitRunsItWithoutRoot(t *testing.T) {
	m := serverWithAgent(t)
	if user := strings.TrimSpace(m.Exec("ps", "-o", "user=", "-C", "chandler")); user == "root" || user == "" {
		t.Errorf("the server runs as %q, want an account of its own", user)
	}
	if got := m.Exec("stat", "-L", "-c", "%a", "/var/lib/chandler"); got != "700" {
		t.Errorf("what the server keeps has mode %s, want 700", got)
	}
}

func TestAPackageOfDebianIsInstalledByTheAgentsUnit(t *testing.T) {
	m := serverWithAgent(t)
	m.CopyIn(download(t, "hello"), "/root/hello.deb", 0o600)
	m.Exec(chandler("package", "publish", "--run", "administrative", "/root/hello.deb")...)
	m.Exec(chandler("deployment", "create", "hello", "--package", "hello", "--program", "install", "--to", "everybody", "--yes", "--watch")...)
	if got := m.Exec("hello"); got != "Hello, world!" {
		t.Errorf("hello says %q", got)
	}
	if got := m.Exec("dpkg-query", "--show", "--showformat=${Status}", "hello"); got != "install ok installed" {
		t.Errorf("dpkg says %q", got)
	}
	for _, kept := range []string{"", "/journal.db", "/logs", "/logs/execmgr.log"} {
		kept = "/var/lib/chandler-agent" + kept
		m.Exec("stat", kept)
		if out, err := m.Command("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cp", "--recursive", kept, "/tmp/taken").CombinedOutput(); err == nil {
			t.Errorf("nobody can read %s: %s", kept, out)
		}
	}
}

// download fetches a package from Debian.
func download(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		unavailable(t, "a package of Debian comes from apt-get, which is not on this machine")
	}
	cmd := exec.CommandContext(t.Context(), "apt-get", "-q", "download", name)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		unavailable(t, "download "+name+" from Debian (apt-get update first): "+err.Error()+"\n"+string(out))
	}
	found, err := filepath.Glob(filepath.Join(cmd.Dir, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("apt-get download left %v, %v", found, err)
	}
	return found[0]
}

func TestARestartOfTheAgentDoesNotDisturbAnInstaller(t *testing.T) {
	m := serverWithAgent(t)
	m.CopyIn(buildProbe(t), "/root/unit-probe_1.0_all.deb", 0o600)
	m.Exec(chandler("package", "publish", "--run", "administrative", "/root/unit-probe_1.0_all.deb")...)
	m.Exec(chandler("deployment", "create", "probe", "--package", "unit-probe", "--program", "install", "--to", "everybody", "--yes")...)
	eventually(t, "the installer runs", func() error { return run(m, "test", "-e", "/run/probe-started") })
	before := m.Exec("systemctl", "show", "--property=MainPID", "chandler-agent")
	m.Exec("systemctl", "restart", "chandler-agent")
	if after := m.Exec("systemctl", "show", "--property=MainPID", "chandler-agent"); after == before {
		t.Errorf("the agent was not restarted: %s", after)
	}
	m.WriteFile("/run/probe-go-on", nil, 0o644)
	m.Exec(chandler("deployment", "watch", "probe")...)
	if got := m.Exec("cat", "/run/probe-started"); got != "started" {
		t.Errorf("the installer ran %d times: %q", strings.Count(got, "started"), got)
	}
	if got := m.Exec("dpkg-query", "--show", "--showformat=${Status}", "unit-probe"); got != "install ok installed" {
		t.Errorf("dpkg says %q", got)
	}
	if got := m.Exec("stat", "-c", "%A %U", "/usr/bin/unit-probe"); got != "-rwsr-xr-x unitprobe" {
		t.Errorf("the installed program is %q", got)
	}

	m.Exec("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "chandler-agent")
	eventually(t, "a killed agent is started again", func() error { return run(m, "systemctl", "is-active", "--quiet", "chandler-agent") })
}

func TestTheServicesRunAgainstABrokerOfItsOwn(t *testing.T) {
	lab := machinetest.NewLab(t)
	built := programs(t)
	m := lab.Start("oslo")
	install(t, m, built)

	// The fleet is made here, where the broker runs and the administrator is.
	home, data := t.TempDir(), filepath.Join(t.TempDir(), "fleet")
	cli := func(args ...string) *exec.Cmd {
		cmd := lab.Command(filepath.Join(built, "chandler"), args...)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home)
		return cmd
	}
	made := cli("up", "--tls", "--tls-name", lab.Address()+","+m.Address, "--data", data)
	startAwaiting(t, made, "chandler is up")()
	startBroker(t, lab, data)

	// What the services need goes to their machine.
	for _, part := range []string{"identity", "tls"} {
		copyTree(t, m, filepath.Join(data, part), "/var/lib/chandler/"+part)
	}
	m.WriteFile("/etc/systemd/system/chandler-services.service.d/test.conf", []byte("[Service]\nEnvironment=CHANDLER_SERVER=tls://"+lab.Address()+":4222 CHANDLER_HTTP_ADVERTISE=https://"+m.Address+":4280\n"), 0o644)
	m.Exec("systemctl", "daemon-reload")
	m.Exec("systemctl", "start", "chandler-services")

	administrator, ca, url := filepath.Join(data, "administrator"), filepath.Join(data, "tls", "ca.pem"), "tls://"+lab.Address()+":4222"
	must := func(context string, args ...string) {
		t.Helper()
		if out, err := cli(append([]string{"--context", context}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	must("", "context", "add", "oslo", "--server", url, "--ca", ca, "--administrator", administrator, "--credentials", filepath.Join(administrator, "admin.creds"))
	eventually(t, "the services are well", func() error {
		out, err := cli("--context", "oslo", "doctor").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, out, m.Exec("journalctl", "--unit", "chandler-services", "--lines", "20"))
		}
		return nil
	})
	must("oslo", "trust", "init")

	// The broker takes what the administrator changes of its accounts.
	creds := filepath.Join(home, "vera.creds")
	must("oslo", "user", "add", "vera", "--role", "viewer", "--out", creds)
	must("", "context", "add", "vera", "--server", url, "--ca", ca, "--credentials", creds)
	must("vera", "agent", "ls")
	must("oslo", "user", "revoke", "vera")
	if out, err := cli("--context", "vera", "agent", "ls").CombinedOutput(); err == nil {
		t.Errorf("a user who was revoked is let in:\n%s", out)
	}
}

// startBroker runs the deployed configuration with what "chandler up" made of a fleet, put where it belongs.
func startBroker(t *testing.T, lab *machinetest.Lab, data string) {
	t.Helper()
	etc, store := t.TempDir(), filepath.Join(data, "broker")
	for from, to := range map[string]string{"identity/operator.jwt": "operator.jwt", "tls/server.pem": "server.pem", "tls/server.key": "server.key"} {
		if err := os.Link(filepath.Join(data, from), filepath.Join(etc, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(filepath.Join(data, "accounts"), filepath.Join(store, "accounts")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(etc, "nats-server.conf")
	text := strings.NewReplacer("/etc/nats/", etc+"/", "/var/lib/nats", store, "0.0.0.0:4222", lab.Address()+":4222").Replace(readText(t, "nats/nats-server.conf"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	broker := lab.Command(os.Args[0])
	broker.Env = append(os.Environ(), brokerVariable+"="+config)
	startAwaiting(t, broker, "ready")
}

// startAwaiting starts a program and waits until it prints a line that begins like this. What it gives ends the
// program.
func startAwaiting(t *testing.T, cmd *exec.Cmd, line string) (stop func()) {
	t.Helper()
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := func() *time.Timer { return time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }) }
	stop = sync.OnceFunc(func() {
		defer limit().Stop()
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended with the test's context
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	defer limit().Stop()
	for lines := bufio.NewScanner(stdout); ; {
		if !lines.Scan() {
			t.Fatalf("%s ended before it printed %q (%v)", cmd.Path, line, lines.Err())
		}
		if strings.HasPrefix(lines.Text(), line) {
			go func() {
				for lines.Scan() { // until it ends
				}
			}()
			return stop
		}
	}
}

// copyTree copies a directory's files into the machine, for root alone.
func copyTree(t *testing.T, m *machinetest.Machine, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(from, name)
		if err == nil {
			m.CopyIn(name, filepath.Join(to, below), 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// programs builds both and gives their directory.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator), "./services/cmd/chandler", "./agent/cmd/chandler-agent")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return dir
}

// install does on the machine what README.md says, without starting anything.
func install(t *testing.T, m *machinetest.Machine, built string) {
	t.Helper()
	m.CopyIn(filepath.Join(built, "chandler"), "/usr/local/bin/chandler", 0o755)
	m.CopyIn(filepath.Join(built, "chandler-agent"), "/root/chandler-agent", 0o755)
	for _, unit := range []string{"chandler.service", "chandler-services.service"} {
		m.CopyIn(filepath.Join("systemd", unit), "/etc/systemd/system/"+unit, 0o644)
	}
	for _, config := range []string{"agent.yaml", "server.yaml"} {
		m.CopyIn(filepath.Join("systemd", config), "/etc/chandler/"+config, 0o644)
	}
	m.Exec("systemctl", "daemon-reload")
}

// chandler is a command line of the CLI of root, who is the administrator. It ends, also when what it waits for
// does not come.
func chandler(args ...string) []string {
	return append([]string{"timeout", "180", "chandler"}, args...)
}

func run(m *machinetest.Machine, args ...string) error {
	if out, err := m.Command(args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// probeScript of a Debian package needs what such scripts often need: an account, files of other owners and
// modes. It waits, so that the agent can be restarted meanwhile.
const probeScript = `#!/bin/sh
set -eu
echo started >> /run/probe-started
useradd --system --no-create-home unitprobe
chown unitprobe:unitprobe /usr/bin/unit-probe
chmod 4755 /usr/bin/unit-probe
while [ ! -e /run/probe-go-on ]; do sleep 0.1; done
`

// buildProbe makes the package unit-probe 1.0.
func buildProbe(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		unavailable(t, "making a Debian package needs dpkg-deb: apt-get install dpkg")
	}
	tree := filepath.Join(t.TempDir(), "unit-probe")
	for name, file := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"DEBIAN/control":     {"Package: unit-probe\nVersion: 1.0\nArchitecture: all\nMaintainer: Chandler <chandler@example.org>\nDescription: probe\n", 0o644},
		"DEBIAN/postinst":    {probeScript, 0o755},
		"usr/bin/unit-probe": {"#!/bin/sh\n", 0o755},
	} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file.text), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	deb := tree + ".deb"
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--root-owner-group", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

// eventually tries until there is no error, for a minute.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute: %v", what, err)
		}
	}
}
