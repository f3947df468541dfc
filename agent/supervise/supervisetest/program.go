package supervisetest

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Description is what a program in mode "describe" sees of itself.
type Description struct {
	Args  []string // those after the mode
	Env   []string
	Dir   string
	Input string   // everything on standard input
	UID   int      // -1 on Windows
	Files []string // open descriptors beyond 2 and their targets, where the system lists them
}

// program returns an exit code; 99 for a mistake in the test itself.
func program(mode string, args []string) int {
	switch mode {
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return 99
		}
		return code
	case "describe":
		return describe(args)
	case "flood":
		return flood(args[0])
	case "guest":
		return guest(args[0], args[1])
	case "go-between": // starts a guest in a session of its own and leaves it an orphan
		if err := spawn(true, "guest", args[0], args[1]); err != nil {
			return 99
		}
		return 0
	}
	return 99
}

func describe(args []string) int {
	dir, err := os.Getwd()
	if err != nil {
		return 99
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 99
	}
	d := Description{Args: args, Env: os.Environ(), Dir: dir, Input: string(input), UID: os.Getuid(), Files: openFiles()}
	if err := json.NewEncoder(os.Stdout).Encode(d); err != nil {
		return 99
	}
	return 0
}

// What the Go runtime opens in every program: its poller, its limits, and the list being read.
var ownOfRuntime = regexp.MustCompile(`^(anon_inode:|/proc/|/sys/fs/cgroup/)`)

// openFiles lists what a program inherited besides the standard three.
func openFiles() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var files []string
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		n, bad := strconv.Atoi(entry.Name())
		if err != nil || bad != nil || n < 3 || ownOfRuntime.MatchString(target) {
			continue
		}
		files = append(files, entry.Name()+" "+target)
	}
	return files
}

func flood(size string) int {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 99
	}
	w := bufio.NewWriter(os.Stdout)
	for left := n - 3; left > 0; left -= 10 {
		w.WriteString("123456789\n"[:min(left, 10)])
	}
	w.WriteString("END")
	if w.Flush() != nil {
		return 99
	}
	return 0
}

// guest obeys until its host hangs up. Each order is answered with "ok" or an error.
func guest(address, name string) int {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 99
	}
	fmt.Fprintln(conn, os.Getpid(), name)
	orders := bufio.NewScanner(conn)
	for orders.Scan() {
		verb, argument, _ := strings.Cut(orders.Text(), " ")
		err = nil
		switch verb {
		case "ping":
		case "exit":
			code, err := strconv.Atoi(argument)
			if err != nil {
				return 99
			}
			os.Exit(code)
		case "print":
			_, err = fmt.Println(argument)
		case "read":
			var data []byte
			if data, err = os.ReadFile(argument); err == nil {
				err = fmt.Errorf("%x", sha256.Sum256(data))
			}
		case "list":
			_, err = os.ReadDir(argument)
		case "stat":
			_, err = os.Stat(argument)
		case "child":
			err = spawn(true, "guest", address, argument)
		case "orphan": // a grandchild in a session of its own whose parent has ended
			err = spawn(false, "go-between", address, argument)
		default:
			err = fmt.Errorf("unknown order %q", verb)
		}
		answer := "ok"
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintln(conn, answer)
	}
	return 0
}

// spawn starts this binary again, holding the same standard output; one that is not detached it waits for.
func spawn(detached bool, mode string, args ...string) error {
	argv := Program(mode, args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if !detached {
		return cmd.Run()
	}
	cmd.SysProcAttr = detachedAttributes()
	return cmd.Start()
}
