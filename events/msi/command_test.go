package msi

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMachineScopeCompletesTheCommand(t *testing.T) {
	one, two, perUser := "1", "2", Info{}
	machine := Info{AllUsers: &one}
	dual := Info{AllUsers: &two, MSIInstallPerUser: &one}
	tests := map[string]struct {
		info  Info
		args  []string
		added []string
	}{
		"adds ALLUSERS=1 when nothing sets a scope":       {perUser, []string{"msiexec", "/i", "a.msi", "/qn"}, []string{"ALLUSERS=1"}},
		"adds ALLUSERS=1 over an authored dual purpose":   {dual, []string{"msiexec", "/i", "a.msi"}, []string{"ALLUSERS=1"}},
		"adds nothing to a package authored per machine":  {machine, []string{"msiexec", "/i", "a.msi"}, nil},
		"adds ALLUSERS=1 when a transform may unset it":   {machine, []string{"msiexec", "/i", "a.msi", "TRANSFORMS=a.mst"}, []string{"ALLUSERS=1"}},
		"adds ALLUSERS=1 when a patch may unset it":       {machine, []string{"msiexec", "/i", "a.msi", "Patch=a.msp"}, []string{"ALLUSERS=1"}},
		"leaves ALLUSERS=1 alone":                         {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=1"}, nil},
		"leaves an explicit per-user installation alone":  {perUser, []string{"msiexec", "/i", "a.msi", `ALLUSERS=""`}, nil},
		"keeps ALLUSERS=2 and switches per-user off":      {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=2"}, []string{"MSIINSTALLPERUSER="}},
		"keeps a quoted ALLUSERS=2 too":                   {dual, []string{"msiexec", "/i", "a.msi", `ALLUSERS="2"`}, []string{"MSIINSTALLPERUSER="}},
		"leaves an explicit choice with ALLUSERS=2 alone": {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=2", "MSIINSTALLPERUSER=1"}, nil},
		"takes property names in any case":                {perUser, []string{"msiexec", "/i", "a.msi", "AllUsers=1"}, nil},
		"believes the last of two":                        {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=1", "ALLUSERS=2"}, []string{"MSIINSTALLPERUSER="}},
		"is not misled by a property of a similar name":   {perUser, []string{"msiexec", "/i", "a.msi", "MYALLUSERS=1"}, []string{"ALLUSERS=1"}},
		"knows msiexec by its path, and /package":         {perUser, []string{`C:\Windows\System32\MsiExec.EXE`, "-Package", "a.msi"}, []string{"ALLUSERS=1"}},
		"knows an option with the package attached":       {perUser, []string{"msiexec", "/ia.msi"}, []string{"ALLUSERS=1"}},
		"leaves removal alone":                            {perUser, []string{"msiexec", "/x", "a.msi"}, nil},
		"leaves patching alone":                           {perUser, []string{"msiexec", "/p", "a.msp"}, nil},
		"leaves repair alone":                             {perUser, []string{"msiexec", "/fa", "a.msi"}, nil},
		"leaves other programs alone":                     {perUser, []string{"setup.exe", "/i", "a.msi"}, nil},
		"leaves a program that only ends like msiexec":    {perUser, []string{"notmsiexec", "/i", "a.msi"}, nil},
		"leaves an empty command alone":                   {perUser, nil, nil},
		"does not stumble over an empty argument":         {perUser, []string{"msiexec", "", "/i", "a.msi"}, []string{"ALLUSERS=1"}},
		"completes what InstallCommand makes":             {perUser, InstallCommand("a.msi"), []string{"ALLUSERS=1"}},
		"leaves what UninstallCommand makes":              {perUser, UninstallCommand(sampleCode), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			given := slices.Clone(test.args)
			roomy := slices.Grow(given, 4)
			got := MachineScope(roomy, test.info)
			if diff := cmp.Diff(append(slices.Clone(test.args), test.added...), got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(got, MachineScope(got, test.info)); diff != "" {
				t.Errorf("completing twice changes it again:\n%s", diff)
			}
			if rest := roomy[len(roomy):cap(roomy)]; slices.ContainsFunc(rest, func(s string) bool { return s != "" }) {
				t.Errorf("wrote %q behind the caller's arguments", rest)
			}
		})
	}
}

func TestCommandsAreSilentAndLeaveTheRestartToTheAgent(t *testing.T) {
	if diff := cmp.Diff([]string{"msiexec", "/i", "a b.msi", "/qn", "/norestart"}, InstallCommand("a b.msi")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"msiexec", "/x", sampleCode, "/qn", "/norestart"}, UninstallCommand(sampleCode)); diff != "" {
		t.Error(diff)
	}
}
