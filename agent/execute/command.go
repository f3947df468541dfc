package execute

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"chandler/agent/supervise"
)

// Shells of a Command.
const (
	Sh         = "sh"
	Cmd        = "cmd"
	PowerShell = "powershell"
)

// LogPlaceholder as an argument stands for the path of a log file that the program may write, in the run's temporary directory.
const LogPlaceholder = "%CHANDLER_LOG%"

// Command is what to run: Argv; or Line, split by the operating system's rule without any shell; or Line as a script of
// Shell. On unix a Line consists of words with quotes and backslashes as in sh, where nothing else is special; on Windows it
// reaches the program verbatim, as every program there splits its own. An argument of Argv, or of a Line without a Shell, that
// is LogPlaceholder and nothing else becomes the path that CHANDLER_LOG in the environment names.
type Command struct {
	Argv  []string
	Line  string
	Shell string // "", Sh, Cmd or PowerShell
}

// Validate reports the first thing that makes the command unusable on this system.
func (c Command) Validate() error {
	switch {
	case len(c.Argv) > 0 && (c.Line != "" || c.Shell != ""):
		return errors.New("command: a list cannot be combined with a string or a shell")
	case len(c.Argv) > 0 && c.Argv[0] == "":
		return errors.New("command: the program's name is empty")
	case len(c.Argv) > 0:
		return nil
	case strings.TrimSpace(c.Line) == "":
		return errors.New("command: empty")
	}
	switch c.Shell {
	case Sh, Cmd, PowerShell:
		return nil
	case "":
		words, err := splitLine(c.Line)
		if err == nil && words[0] == "" {
			err = errors.New("the program's name is empty")
		}
		if err != nil {
			return fmt.Errorf("command %q: %w", c.Line, err)
		}
		return nil
	}
	return fmt.Errorf("command: shell %q is none of %s, %s, %s", c.Shell, Sh, Cmd, PowerShell)
}

// refusal is a reason that a program cannot be started, found before it was tried.
type refusal struct{ kind, text string }

func (r *refusal) Error() string { return r.text }

// resolve finds the program and returns its argv, and on Windows the command line to pass verbatim. log replaces LogPlaceholder.
func (c Command) resolve(contentDir, log string, env []string) (argv []string, line string, err error) {
	if c.Shell != "" {
		return c.resolveShell(env)
	}
	argv = c.Argv
	if len(argv) == 0 {
		if argv, err = splitLine(c.Line); err != nil {
			return nil, "", err
		}
	}
	path, err := find(argv[0], contentDir, env)
	if err != nil {
		return argv, "", err
	}
	argv = append([]string{path}, argv[1:]...)
	for i, argument := range argv[1:] {
		if argument == LogPlaceholder {
			argv[i+1] = log
		}
	}
	if len(c.Argv) == 0 {
		line = replaceArgument(verbatimLine(path, c.Line), LogPlaceholder, log)
	}
	return argv, line, nil
}

// replaceArgument puts a path, in quotes, for every argument of a Windows command line that is exactly old. Everything else
// stays as it is written.
func replaceArgument(line, old, path string) string {
	if !strings.Contains(line, old) {
		return line
	}
	_, rest, err := cutProgram(line)
	if err != nil {
		return line // splitLine has refused it
	}
	var b strings.Builder
	b.WriteString(line[:len(line)-len(rest)])
	for rest != "" {
		arguments := strings.TrimLeft(rest, windowsBlanks)
		b.WriteString(rest[:len(rest)-len(arguments)])
		if arguments == "" {
			break
		}
		var word string
		word, rest = cutArgument(arguments)
		if word == old {
			b.WriteString(`"` + path + `"`)
		} else {
			b.WriteString(arguments[:len(arguments)-len(rest)])
		}
	}
	return b.String()
}

// resolveShell never looks for a shell among the package's files.
func (c Command) resolveShell(env []string) (argv []string, line string, err error) {
	name := shellProgram(c.Shell, env)
	path, err := find(name, "", env)
	if err != nil {
		return []string{name}, "", err
	}
	switch c.Shell {
	case Cmd:
		// cmd has a rule of its own: with /s it strips the outer quotes and takes the rest as it is.
		return []string{path, "/d", "/s", "/c", c.Line}, `"` + path + `" /d /s /c "` + c.Line + `"`, nil
	case PowerShell:
		// Encoded, because its own splitting of a command line loses quotes.
		argv = []string{path, "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-EncodedCommand", encodeScript(c.Line)}
		return argv, "", nil
	}
	return []string{path, "-c", c.Line}, "", nil
}

// encodeScript is base64 of UTF-16LE, as -EncodedCommand wants it.
func encodeScript(script string) string {
	var data []byte
	for _, unit := range utf16.Encode([]rune(script)) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return base64.StdEncoding.EncodeToString(data)
}

// find resolves a program's name: a path as it is, or relative to the content; a bare name is the file of that name in the
// content, else the first program of that name on the PATH of the program's environment.
func find(name, contentDir string, env []string) (string, error) {
	if filepath.IsAbs(name) {
		if path := firstFile(name, env, false); path != "" {
			return path, nil
		}
		return name, nil // the supervisor says what is wrong with it
	}
	if contentDir != "" && filepath.IsLocal(name) {
		if path := firstFile(filepath.Join(contentDir, name), env, false); path != "" {
			return path, nil
		}
	}
	if isPath(name) {
		return "", &refusal{supervise.NotFound, fmt.Sprintf("%q is not a file of the package", name)}
	}
	search := lookupEnv(env, "PATH")
	for _, dir := range filepath.SplitList(search) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if path := firstFile(filepath.Join(dir, name), env, true); path != "" {
			return path, nil
		}
	}
	return "", &refusal{supervise.NotFound, fmt.Sprintf("%q is neither a file of the package nor a program on the PATH %s", name, search)}
}

// firstFile returns the first of the names that path may stand for that is a file and, if asked for, executable.
func firstFile(path string, env []string, mustExecute bool) string {
	for _, candidate := range candidates(path, env) {
		info, err := os.Stat(candidate)
		if err == nil && info.Mode().IsRegular() && (!mustExecute || executable(info)) {
			return candidate
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !mustExecute {
			return candidate // unreadable is not absent: the error comes out at the start
		}
	}
	return ""
}
