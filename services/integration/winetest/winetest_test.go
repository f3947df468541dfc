package winetest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const product = `<?xml version="1.0"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E01" Name="Rig" Language="1033" Version="1.2.3" Manufacturer="Example" UpgradeCode="6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E02">
    <Package InstallerVersion="500" Compressed="yes"/>
    <Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir"/>
    <DirectoryRef Id="TARGETDIR">
      <Component Id="where" Guid="6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E03" Win64="yes">
        <RegistryValue Root="HKMU" Key="Software\ChandlerRig" Name="a value" Type="string" Value="two  words" KeyPath="yes"/>
      </Component>
    </DirectoryRef>
    <Feature Id="all" Level="1"><ComponentRef Id="where"/></Feature>
  </Product>
</Wix>
`

func TestAnMSIIsInstalledWhereItsScopeSays(t *testing.T) {
	t.Parallel()
	msi := BuildMSI(t, product)
	for name, c := range map[string]struct {
		property, there, elsewhere string
	}{
		"for the machine":      {"ALLUSERS=1", "HKLM", "HKCU"},
		"for the user, unsaid": {"REBOOT=ReallySuppress", "HKCU", "HKLM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := New(t)
			p.Exec("msiexec", "/i", Path(msi), "/qn", c.property)
			if value, found := p.Registry(c.there+`\Software\ChandlerRig`, "a value"); value != "two  words" || !found {
				t.Errorf("%s holds %q, %v", c.there, value, found)
			}
			if value, found := p.Registry(c.elsewhere+`\Software\ChandlerRig`, "a value"); found || p.HasKey(c.elsewhere+`\Software\ChandlerRig`) {
				t.Errorf("%s holds %q", c.elsewhere, value)
			}
		})
	}
}

func TestEveryPrefixIsAMachineOfItsOwn(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	a.Exec("reg", "add", `HKLM\Software\Example`, "/v", "n", "/t", "REG_DWORD", "/d", "17")
	if value, found := a.Registry(`HKLM\Software\Example`, "n"); value != "0x11" || !found {
		t.Errorf("read back %q, %v", value, found)
	}
	if b.HasKey(`HKLM\Software\Example`) {
		t.Error("another prefix has the key")
	}
	var ids []string
	for _, p := range []*Prefix{a, b} {
		id, found := p.Registry(`HKLM\Software\Microsoft\Cryptography`, "MachineGuid")
		if !found {
			t.Fatal("a machine has no id")
		}
		ids = append(ids, id)
	}
	if ids[0] == ids[1] {
		t.Errorf("two machines have the id %s", ids[0])
	}
}

func TestFilesAndExitCodesCrossTheBorder(t *testing.T) {
	t.Parallel()
	p := New(t)
	if err := os.WriteFile(p.Unix(`C:\in`), []byte("word\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := p.Exec("cmd", "/c", "type", Path(p.Unix(`C:\in`))); out != "word\n" {
		t.Errorf("read %q", out)
	}
	cmd := p.Command("cmd", "/c", "exit 17")
	exit, ok := errors.AsType[*exec.ExitError](cmd.Run())
	if !ok || exit.ExitCode() != 17 {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
	for _, entry := range cmd.Env {
		if strings.HasPrefix(entry, "DISPLAY=") || strings.HasPrefix(entry, "CHANDLER_") {
			t.Errorf("the test's %s gets in", entry)
		}
	}
}
