package deploy_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"chandler/services/integration/machinetest"
)

// brokerVariable turns the test's program into a broker with the deployed configuration, at an address.
const brokerVariable = "CHANDLER_DEPLOY_BROKER"

func TestMain(m *testing.M) {
	if host := os.Getenv(brokerVariable); host != "" {
		if err := runBroker(host, os.Getenv(brokerVariable+"_STORE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runBroker differs from the deployed configuration in where it listens and what it keeps.
func runBroker(host, store string) error {
	o, err := natsserver.ProcessConfigFile("nats/nats-server.conf")
	if err != nil {
		return err
	}
	o.Host, o.HTTPPort, o.StoreDir, o.NoSigs = host, 0, store, true
	s, err := natsserver.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("the broker does not listen on %s", host)
	}
	fmt.Println("ready")
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	<-interrupted
	s.Shutdown()
	return nil
}

// serverWithAgent boots a machine whose server and agent are started by their units.
func serverWithAgent(t *testing.T) *machinetest.Machine {
	t.Helper()
	m := machinetest.NewLab(t).Start("oslo")
	install(t, m)
	m.Exec("systemctl", "start", "chandler")
	eventually(t, "the server answers", func() error { return run(m, chandler("doctor", "-o", "json")...) })
	m.Exec("cp", "/var/lib/chandler/trust.json", "/etc/chandler/trust.json")
	m.WriteFile("/etc/systemd/system/chandler-agent.service.d/test.conf", []byte("[Service]\nEnvironment=CHANDLER_SERVERS=nats://127.0.0.1:4222\n"), 0o644)
	m.Exec("systemctl", "daemon-reload")
	m.Exec("systemctl", "start", "chandler-agent")
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
	m := lab.Start("oslo")
	install(t, m)
	broker := lab.Command(os.Args[0])
	broker.Env = append(os.Environ(), brokerVariable+"="+lab.Address(), brokerVariable+"_STORE="+t.TempDir())
	broker.Stderr = os.Stderr
	stdout, err := broker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = broker.Process.Signal(os.Interrupt) // it may have ended with the test's context
		_ = broker.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("the broker does not start: %q, %v", line, err)
	}
	m.WriteFile("/etc/systemd/system/chandler-services.service.d/test.conf", []byte("[Service]\nEnvironment=CHANDLER_SERVER=nats://"+lab.Address()+":4222\n"), 0o644)
	m.Exec("systemctl", "daemon-reload")
	m.Exec("systemctl", "start", "chandler-services")
	eventually(t, "the services are well", func() error {
		out, err := m.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9650; printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3; cat <&3`).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "HTTP/1.0 200") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// install does on the machine what README.md says, without starting anything.
func install(t *testing.T, m *machinetest.Machine) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator), "./services/cmd/chandler", "./agent/cmd/chandler-agent")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	for _, program := range []string{"chandler", "chandler-agent"} {
		m.CopyIn(filepath.Join(dir, program), "/usr/local/bin/"+program, 0o755)
	}
	for _, unit := range []string{"chandler.service", "chandler-services.service", "chandler-agent.service"} {
		m.CopyIn(filepath.Join("systemd", unit), "/etc/systemd/system/"+unit, 0o644)
	}
	for _, config := range []string{"agent.yaml", "server.yaml"} {
		m.CopyIn(filepath.Join("systemd", config), "/etc/chandler/"+config, 0o644)
	}
	m.Exec("systemctl", "daemon-reload")
}

// chandler is a command line of the CLI with the context that the unit's server wrote.
func chandler(args ...string) []string {
	return append([]string{"env", "XDG_CONFIG_HOME=/var/lib/chandler/config", "chandler"}, args...)
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
