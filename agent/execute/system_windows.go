package execute

import (
	"io/fs"
	"path/filepath"
	"strings"
)

const usualExtensions = ".COM;.EXE;.BAT;.CMD"

func splitLine(line string) ([]string, error) { return splitWindows(line) }

// verbatimLine is the line with the program's name replaced by the path that was found for it.
func verbatimLine(path, line string) string {
	_, rest, err := cutProgram(strings.TrimLeft(line, windowsBlanks))
	if err != nil {
		return "" // splitLine has refused it
	}
	return `"` + path + `"` + rest
}

func isPath(name string) bool { return strings.ContainsAny(name, `/\:`) }

// candidates adds the extensions of programs to a name without one.
func candidates(path string, env []string) []string {
	names := []string{path}
	if filepath.Ext(path) != "" {
		return names
	}
	extensions := lookupEnv(env, "PATHEXT")
	if extensions == "" {
		extensions = usualExtensions
	}
	names = nil // a file without extension is no program
	for extension := range strings.SplitSeq(extensions, ";") {
		names = append(names, path+extension)
	}
	return names
}

func executable(fs.FileInfo) bool { return true }

func foldName(name string) string { return strings.ToUpper(name) }

func temporaryNames() []string { return []string{"TEMP", "TMP"} }

func shellProgram(shell string, env []string) string {
	system := filepath.Join(lookupEnv(env, "SystemRoot"), "System32")
	switch shell {
	case Cmd:
		return filepath.Join(system, "cmd.exe")
	case PowerShell:
		return filepath.Join(system, "WindowsPowerShell", "v1.0", "powershell.exe")
	}
	return shell
}
