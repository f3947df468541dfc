package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chandler/agent"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
	"chandler/services/integration/winetest"
)

// windowsMachine is a machine with Windows and the agent that administrators are given, not yet installed.
type windowsMachine struct {
	*winetest.Prefix
	t       *testing.T
	program string // the agent's
	row     *machine
}

const windowsConfig = `hostname: %s
metrics: 127.0.0.1:0
state-dir: C:\ProgramData\Chandler\agent
`

func (f *fleet) windows(name string) *windowsMachine {
	f.t.Helper()
	w := &windowsMachine{Prefix: winetest.New(f.t), t: f.t, program: winetest.Build(f.t, "chandler/agent/cmd/chandler-agent"), row: &machine{t: f.t, name: name}}
	must(f.t, os.MkdirAll(w.Unix(`C:\ProgramData\Chandler`), 0o700))
	f.t.Cleanup(func() {
		if said, err := os.ReadFile(w.Unix(`C:\ProgramData\Chandler\agent\logs\agent.log`)); f.t.Failed() && err == nil {
			f.t.Logf("the service on %s said:\n%s", name, tail(string(said)))
		}
	})
	must(f.t, os.WriteFile(w.Unix(`C:\ProgramData\Chandler\agent.yaml`), fmt.Appendf(nil, windowsConfig, name), 0o600))
	return w
}

// agent runs a command of a program of the agent with a token on its standard input.
func (w *windowsMachine) agent(program, token string, args ...string) string {
	w.t.Helper()
	cmd := w.Command(program, args...)
	cmd.Stdin = strings.NewReader(token)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("chandler-agent %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start runs the agent until the test ends.
func (w *windowsMachine) start() {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "agent.log")
	log, err := os.Create(path)
	must(w.t, err)
	cmd := w.Command(w.program, "run")
	cmd.Stdout, cmd.Stderr = log, log
	must(w.t, cmd.Start())
	must(w.t, log.Close())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if w.t.Failed() {
			said, _ := os.ReadFile(path)
			w.t.Logf("agent %s said:\n%s", w.row.name, tail(string(said)))
		}
	})
}

// status is what the agent says of itself.
func (w *windowsMachine) status() (s agent.Status) {
	w.t.Helper()
	must(w.t, json.Unmarshal([]byte(w.agent(w.program, "", "status", "--output", "json")), &s))
	return s
}

// publishWindows publishes a package of one program, by its lines in package.yaml, and files by their names.
func (f *fleet) publishWindows(name, program string, files map[string]string) events.PackageInfo {
	f.t.Helper()
	dir := f.t.TempDir()
	text := "api: chandler/v1\npackage: " + name + "\nversion: \"1.0\"\nprograms:\n  install:\n    run: administrative\n"
	for line := range strings.Lines(program) {
		text += "    " + line
	}
	must(f.t, os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(text), 0o600))
	for name, from := range files {
		must(f.t, os.Link(from, filepath.Join(dir, name)))
	}
	return f.publishDir(dir, time.Now)
}

const product = "{0B6E5C2A-7A0C-4E53-9B6E-6C1F5D2A9001}"

const wxs = `<?xml version="1.0"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="0B6E5C2A-7A0C-4E53-9B6E-6C1F5D2A9001" Name="Story" Language="1033" Version="1.2.3" Manufacturer="Example" UpgradeCode="0B6E5C2A-7A0C-4E53-9B6E-6C1F5D2A9002">
    <Package InstallerVersion="500" Compressed="yes"/>
    <Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir"/>
    <DirectoryRef Id="TARGETDIR">
      <Component Id="where" Guid="0B6E5C2A-7A0C-4E53-9B6E-6C1F5D2A9003" Win64="yes">
        <RegistryValue Root="HKMU" Key="Software\ChandlerStory" Name="installed" Type="string" Value="yes" KeyPath="yes"/>
      </Component>
    </DirectoryRef>
    <Feature Id="all" Level="1"><ComponentRef Id="where"/></Feature>
  </Product>
</Wix>
`

func TestAWindowsMachineDoesWhatSignedOrdersSay(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := f.windows("pc1")
	w.agent(w.program, f.token("pc1"), "enrol")
	w.row.id = w.status().ID
	w.start()
	f.everyone(1)

	t.Run("it tells that it is Windows", func(t *testing.T) {
		found := mustAsk(f, events.AgentList, events.AgentQuery{Where: `agent.os == "windows" && agent.hostname == "pc1"`})
		if len(found.Agents) != 1 || found.Agents[0].Facts.ID != w.row.id {
			t.Errorf("found %+v", found)
		}
	})
	t.Run("it installs an MSI for the machine", func(t *testing.T) {
		msi := winetest.BuildMSI(t, wxs)
		f.deploy("msi", f.publishWindows("story", "command: [msiexec, /i, product.msi, /qn, ALLUSERS=1]\ndetect:\n  - msi: \""+product+"\"\n", map[string]string{"product.msi": msi}))
		f.want("msi", w.row, events.Succeeded)
		if value, _ := w.Registry(`HKLM\Software\ChandlerStory`, "installed"); value != "yes" {
			t.Errorf("the machine's registry says %q", value)
		}
		if w.HasKey(`HKCU\Software\ChandlerStory`) {
			t.Error("it is installed for the user who ran the installer")
		}
	})
	t.Run("it tells how a program failed", func(t *testing.T) {
		f.deploy("failing", f.publishWindows("failing", "shell: cmd\ncommand: exit 4711\n", nil))
		f.want("failing", w.row, events.Failed)
		told := f.statuses("failing", w.row)
		if last := told[len(told)-1]; last.ExitCode == nil || *last.ExitCode != 4711 {
			t.Errorf("it told %+v", last)
		}
	})
	t.Run("it ends a program whose time is over, with all that it started", func(t *testing.T) {
		meeting := supervisetest.Meet(t)
		command, err := json.Marshal(append([]string{"guest.exe"}, meeting.Program("p")[1:]...))
		must(t, err)
		f.deploy("hanging", f.publishWindows("hanging", "command: "+string(command)+"\nmax-run-time: 6s\n",
			map[string]string{"guest.exe": winetest.BuildTest(t, "chandler/agent/supervise")}))
		program := meeting.Guest(t, "p")
		program.Do(t, "orphan q")
		grandchild := meeting.Guest(t, "q")
		grandchild.Do(t, "ping")
		program.Gone(t)
		grandchild.Gone(t)
		if row := f.want("hanging", w.row, events.Failed); row.Reason != events.RunTimeExceeded {
			t.Errorf("it told %s", row.Reason)
		}
	})
	f.check("msi", w.row)
}

func TestTheAgentIsAServiceOfWindows(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := f.windows("pc2")
	w.agent(w.program, f.token("pc2"), "install")
	w.row.id = w.status().ID
	f.everyone(1)
	running := func() bool { return w.status().PID != 0 }
	eventually(t, "the service runs", running)

	t.Run("it works as a service", func(t *testing.T) {
		f.deploy("as-service", f.publishWindows("quick", "shell: cmd\ncommand: exit 0\n", nil))
		f.want("as-service", w.row, events.Succeeded)
	})
	t.Run("installed again, nothing changes", func(t *testing.T) {
		if said := w.agent(w.program, "", "install"); !strings.Contains(said, "installed before: nothing changed") {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("it stops and starts", func(t *testing.T) {
		w.agent(w.program, "", "stop")
		if running() {
			t.Error("it runs after its stop")
		}
		w.agent(w.program, "", "start")
		eventually(t, "it runs again", running)
	})
	t.Run("installed elsewhere, the service runs from there", func(t *testing.T) {
		w.agent(w.program, "", "install", "--prefix", `C:\Elsewhere in a folder`)
		command, _ := w.Registry(`HKLM\System\CurrentControlSet\Services\chandler-agent`, "ImagePath")
		if want := `"C:\Elsewhere in a folder\chandler-agent.exe" run --config C:\ProgramData\Chandler\agent.yaml`; command != want {
			t.Errorf("the service's command is %s, want %s", command, want)
		}
		eventually(t, "it runs again", running)
		f.deploy("from-there", f.publishWindows("quick-too", "shell: cmd\ncommand: exit 0\n", nil))
		f.want("from-there", w.row, events.Succeeded)
	})
	t.Run("it is uninstalled", func(t *testing.T) {
		w.agent(w.program, "", "uninstall", "--prefix", `C:\Elsewhere in a folder`)
		if running() {
			t.Error("it still runs")
		}
		if w.HasKey(`HKLM\System\CurrentControlSet\Services\chandler-agent`) {
			t.Error("the service is still there")
		}
		if said := w.agent(w.program, "", "uninstall", "--prefix", `C:\Elsewhere in a folder`); !strings.Contains(said, "not installed: nothing changed") {
			t.Errorf("again, it says %q", said)
		}
	})
}
