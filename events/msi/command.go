package msi

import (
	"slices"
	"strings"
)

// InstallCommand installs the package in file silently, leaving a restart to the agent.
func InstallCommand(file string) []string {
	return []string{"msiexec", "/i", file, "/qn", "/norestart"}
}

// UninstallCommand removes the product with that code silently, leaving a restart to the agent.
func UninstallCommand(productCode string) []string {
	return []string{"msiexec", "/x", productCode, "/qn", "/norestart"}
}

// MachineScope returns the command line args (program first) completed so that it installs the package info for the whole
// machine, whoever runs it. What the command says itself stays: only missing properties are added, behind it, and any command
// but an installation by msiexec is returned as it is. args is never changed.
//
//   - ALLUSERS neither in the command nor authored as 1: ALLUSERS=1 is added. It is also added to a command with a transform or
//     a patch, which may take the authored one away.
//   - ALLUSERS=2 in the command: from Windows Installer 5.0 on a package authored with MSIINSTALLPERUSER=1 is then installed for
//     the user, so an empty MSIINSTALLPERUSER is added unless the command sets that property.
//   - any other ALLUSERS in the command, an empty one too, is the administrator's explicit choice.
//
// An empty property is the argument `MSIINSTALLPERUSER=`, without the quotes that a command line has there.
func MachineScope(args []string, info Info) []string {
	if !installs(args) {
		return args
	}
	scope, set := property(args, "ALLUSERS")
	switch {
	case !set && info.AllUsers != nil && *info.AllUsers == "1" && !amended(args):
		return args
	case !set:
		return append(slices.Clone(args), "ALLUSERS=1")
	case scope == "2":
		if _, set := property(args, "MSIINSTALLPERUSER"); !set {
			return append(slices.Clone(args), "MSIINSTALLPERUSER=")
		}
	}
	return args
}

// installs tells whether args is msiexec with /i or /package, in any case, with - or /, and with the package in the same
// argument or the next.
func installs(args []string) bool {
	if len(args) == 0 {
		return false
	}
	program := args[0][strings.LastIndexAny(args[0], `\/`)+1:]
	if !strings.EqualFold(program, "msiexec") && !strings.EqualFold(program, "msiexec.exe") {
		return false
	}
	return slices.ContainsFunc(args[1:], func(arg string) bool {
		if arg == "" || arg[0] != '/' && arg[0] != '-' {
			return false
		}
		option := strings.ToLower(arg[1:])
		return strings.HasPrefix(option, "i") || strings.HasPrefix(option, "package")
	})
}

// amended tells whether the command changes the package's authored properties.
func amended(args []string) bool {
	_, transforms := property(args, "TRANSFORMS")
	_, patch := property(args, "PATCH")
	return transforms || patch
}

// property returns the value that an msiexec command line gives a property: the last one counts, and names are taken without
// regard to case, since msiexec turns them into upper case.
func property(args []string, name string) (value string, set bool) {
	for _, arg := range slices.Backward(args[1:]) {
		if key, value, ok := strings.Cut(arg, "="); ok && strings.EqualFold(key, name) {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}
