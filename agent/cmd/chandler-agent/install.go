package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
)

func programName() string {
	if runtime.GOOS == "windows" {
		return "chandler-agent.exe"
	}
	return "chandler-agent"
}

func defaultPrefix() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramFiles"), "Chandler")
	}
	return "/usr/local/bin"
}

// installation is what install does.
type installation struct {
	conf    config
	self    string // this program
	program string // where it is put
	image   bool   // of another system, where nothing is started and nobody enrols
	service manager
	token   tokenSource
	out     io.Writer
}

func installCommand(file *string) *cobra.Command {
	var from, prefix, root, socket, stateDir string
	c := &cobra.Command{Use: "install [NAME]", Args: cobra.MaximumNArgs(1),
		Short: "with NAME: start the deployment or package of that name, which is available here, now; without: copy this program to its place, enrol, and start it with the machine (done again, it changes nothing)"}
	c.Flags().StringVar(&socket, "socket", "", "with NAME: socket of the agent, instead of the configured one's")
	c.Flags().StringVar(&stateDir, "state-dir", "", "with NAME: directory of what the agent keeps, as it was given to run")
	c.Flags().StringVar(&from, "token-file", "", "file with the token, - for standard input (else $"+tokenVariable+", else standard input)")
	c.Flags().StringVar(&prefix, "prefix", defaultPrefix(), "directory for the program")
	c.Flags().StringVar(&root, "root", "", "install into the image of a system below this directory: nothing is started and nobody enrols, because two machines must not have one identity")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			for _, flag := range []string{"token-file", "prefix", "root"} {
				if c.Flags().Changed(flag) {
					return fmt.Errorf("--%s installs the agent itself, which takes no NAME", flag)
				}
			}
			return startAvailable(c.Context(), c, socketOf(*file, socket, stateDir), args[0])
		}
		for _, flag := range []string{"socket", "state-dir"} {
			if c.Flags().Changed(flag) {
				return fmt.Errorf("--%s says which agent starts what is available: NAME is missing", flag)
			}
		}
		if root != "" && (from != "" || os.Getenv(tokenVariable) != "") {
			return errors.New("--root takes no token: an image has no identity, and each machine made of it enrols by itself (`chandler-agent enrol --token-file FILE` there, or a token file or " +
				tokenVariable + " given to its unit's `chandler-agent run`)")
		}
		token, err := tokenFrom(from, c.InOrStdin(), c.ErrOrStderr(), true)
		if err != nil {
			return err
		}
		if root == "" && os.Geteuid() > 0 {
			return errors.New("only root may install: run this with sudo")
		}
		conf, err := readConfig(*file, nil)
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own program: %w", err)
		}
		config, err := filepath.Abs(*file)
		if err != nil {
			return err
		}
		program := filepath.Join(prefix, programName())
		service, err := systemManager(root, program, config)
		if err != nil {
			return err
		}
		i := installation{conf: conf, self: self, program: filepath.Join(root, program), image: root != "", service: service, token: token, out: c.OutOrStdout()}
		return i.run(c.Context())
	}
	return c
}

// run leaves nothing running that has no identity: the service comes last.
func (i installation) run(ctx context.Context) error {
	copied, err := i.copyProgram()
	if err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	if !i.image {
		said, err := enrolMachine(ctx, i.conf, i.token)
		if err != nil {
			return err
		}
		fmt.Fprintln(i.out, said)
	}
	registered, err := i.service.install()
	if err != nil {
		return fmt.Errorf("install service: %w", err)
	}
	if !i.image {
		start := i.service.start
		if copied || registered {
			start = i.service.restart
		}
		if err := start(); err != nil {
			return fmt.Errorf("start service: %w", err)
		}
	}
	if i.image && (copied || registered) {
		fmt.Fprintf(i.out, "installed %s into the image; each machine made of it must enrol: `chandler-agent enrol --token-file FILE` there, "+
			"or let its unit run `chandler-agent run --token-file FILE` (or with %s), which enrols at the first start\n", i.program, tokenVariable)
		return nil
	}
	if !copied && !registered {
		fmt.Fprintln(i.out, "installed before: nothing changed")
		return nil
	}
	fmt.Fprintf(i.out, "installed %s, started with the machine as %s\n", i.program, serviceName)
	return nil
}

// copyProgram puts this program into place, unless it is there.
func (i installation) copyProgram() (changed bool, err error) {
	own, err := os.ReadFile(i.self)
	if err != nil {
		return false, err
	}
	there, err := os.ReadFile(i.program)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil && bytes.Equal(own, there) {
		return false, nil
	}
	if runtime.GOOS == "windows" { // where a program that runs cannot be replaced
		if err := i.service.stop(); err != nil {
			return false, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(i.program), 0o755); err != nil {
		return false, err
	}
	return true, replace(i.program, own, 0o755)
}

// replace writes a file whole or not at all.
func replace(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".chandler-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone if all went well
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Chmod(f.Name(), mode)); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func uninstallCommand() *cobra.Command {
	var prefix, root string
	c := &cobra.Command{Use: "uninstall", Short: "stop the agent and remove the service and the program; what the agent keeps stays", Args: cobra.NoArgs}
	c.Flags().StringVar(&prefix, "prefix", defaultPrefix(), "directory of the program")
	c.Flags().StringVar(&root, "root", "", "uninstall from the image of a system below this directory")
	c.RunE = func(c *cobra.Command, _ []string) error {
		program := filepath.Join(prefix, programName())
		service, err := systemManager(root, program, "")
		if err != nil {
			return err
		}
		removed, err := service.uninstall()
		if err != nil {
			return fmt.Errorf("remove service: %w", err)
		}
		err = os.Remove(filepath.Join(root, program))
		switch {
		case errors.Is(err, fs.ErrNotExist) && !removed:
			fmt.Fprintln(c.OutOrStdout(), "not installed: nothing changed")
		case err != nil && !errors.Is(err, fs.ErrNotExist): // Windows does not let a running program remove itself
			fmt.Fprintf(c.OutOrStdout(), "uninstalled, but for the program itself: %v\n", err)
		default:
			fmt.Fprintln(c.OutOrStdout(), "uninstalled; what the agent keeps stays")
		}
		return nil
	}
	return c
}

// serviceCommand starts or stops the service.
func serviceCommand(verb string, act func(manager) error) *cobra.Command {
	return &cobra.Command{Use: verb, Short: verb + " the agent that is installed", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		service, err := systemManager("", filepath.Join(defaultPrefix(), programName()), "")
		if err != nil {
			return err
		}
		if err := act(service); err != nil {
			return fmt.Errorf("%s service: %w", verb, err)
		}
		return nil
	}}
}
