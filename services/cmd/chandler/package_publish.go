package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/services/content/publish"
)

var errNameVersion = errors.New("say which version is to be removed: NAME@VERSION")

// publishFlags are those of package publish, as typed.
type publishFlags struct {
	run, name, version string
	dryRun             bool
	source             sourceFlags
	asked              *asking
	beside             map[string]events.Manifest // packages about to be published, by name@version
}

func packagePublish(a *app) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use: "publish PATH", Short: "Publish a package: a directory with package.yaml, or a .deb, .rpm, .msi or script file", Args: cobra.ExactArgs(1),
		Long: `Reads and checks the package here, signs it with the key of the context, uploads what the content service
lacks, and publishes it. Agents run nothing but what a publisher signed. A published version never changes.
With --dry-run it ends with the checks, and shows what would be signed.

The programs of a .deb, .rpm, .msi or script are inferred; whose rights they run with is not: say --run.

Keys of package.yaml beside those of the README's example:
  category: editors                       for people who choose from what is available
  supersedes: [{package: hello, version: "< 2.10", uninstall: hello@2.9/remove}]
                                          takes the place of those versions; with uninstall that program removes them first
and of each of its programs:
  run-first: [runtime@4.2/install]        programs that run before it, where they did not succeed yet
  always-run-first: true                  they run before it each time
  repairs: install                        it puts that program of the package right: it runs only where that one succeeded
  disk-space: 2GB                         that must be free on the system's disk
  platforms: [{os: windows, arch: amd64, name: "Microsoft Windows 11", min-version: "10.0.22000", max-version: "10.1"}]
                                          where it runs; name is the beginning of the fact os_name; any of several will do
  window: minimized                       of an interactive program on Windows: normal, minimized, maximized or hidden

A package whose content is not to be on distribution points names it in package.yaml:
  source: smb://files.example/software/hello          all of its files; or those listed under files
  command: ['\\files.example\software\setup.exe', /S]  the program of a command, or the .msi that msiexec is given
  references: [{url: smb://files.example/licences}]   what a program reads while it runs
Source and commands are read here and pinned by their digests, as the user of --source-user, or where they are mounted on
this machine (--source-dir); machines read them there, as those whom "chandler package access" names.`,
		Example: `  chandler package publish ./hello
  chandler package publish hello_2.10-3_amd64.deb --run administrative
  chandler package publish ./hello --source-user 'EXAMPLE\ada'
  chandler package publish ./hello --source-method bearer --source-secret-file token
  chandler package publish ./hello --source-dir /mnt/software/hello
  chandler package publish ./hello --source-dir smb://files.example/software=/mnt/software --dry-run`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			return a.publish(cmd, c, args[0], f)
		}),
	}
	f.asked = a.asksPassphrase(cmd)
	cmd.Flags().StringVar(&f.run, "run", "", "whose rights the programs of a file run with: user or administrative")
	cmd.Flags().StringVar(&f.name, "name", "", "name of the package of a file, instead of what the file says")
	cmd.Flags().StringVar(&f.version, "version", "", "version of the package of a file, instead of what the file says")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything and show what would be signed; sign and send nothing")
	completeWords(cmd, "run", string(events.RunUser), string(events.RunAdministrative))
	f.source.register(cmd)
	return cmd
}

func (a *app) publish(cmd *cobra.Command, c *client, path string, f publishFlags) error {
	if err := checkPublish(path, f); err != nil {
		return err
	}
	if err := c.may(events.ContentCommit.CallDeclaration); err != nil {
		return err
	}
	plan, err := a.plan(cmd, c, path, f)
	if err != nil {
		return err
	}
	m := plan.Manifest
	if f.dryRun {
		return writeDetail(cmd.OutOrStdout(), a.output, m, packageName(events.PackageInfo{Manifest: m}), slices.Concat(titleFields(m), contentFields(m)))
	}
	_, lookErr := ask(cmd.Context(), c, events.ContentShow, events.Named{Name: m.Package, Version: m.Version})
	web, err := c.web()
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), a.isTerminal(cmd.ErrOrStderr()), "upload", plan.Size())
	published, err := publish.Upload(cmd.Context(), plan, contentServer{c}, web, progress.set)
	progress.finish(err == nil)
	if err != nil {
		return fmt.Errorf("publish %s: %w", path, err)
	}
	done := "is published"
	if lookErr == nil {
		done = "was published already, with the same content"
	}
	return a.answer(cmd, published, packageName(published), "package %s %s: %s, %s%s, programs: %s", packageName(published), done,
		plural(len(published.Manifest.Files), "file", "files"), byteSize(published.Manifest.Size()), notUploaded(published.Manifest), cellText(programNames(published.Manifest)))
}

// notUploaded says how much of a package stays where it is.
func notUploaded(m events.Manifest) string {
	outside := 0
	for _, f := range m.Files {
		if manifest.Outside(m, f) {
			outside++
		}
	}
	switch outside {
	case 0:
		return ""
	case len(m.Files):
		return " (on external sources, not uploaded)"
	}
	return fmt.Sprintf(" (%d of them on external sources, not uploaded)", outside)
}

// plan reads the package, tells what the administrator should know of it, and signs it unless this is a dry run.
func (a *app) plan(cmd *cobra.Command, c *client, path string, f publishFlags) (*publish.Plan, error) {
	var seal func(events.Manifest) ([]byte, error)
	if !f.dryRun {
		s, err := a.signer(cmd.Context(), c, f.asked)
		if err != nil {
			return nil, err
		}
		if err := s.mayPublish(); err != nil {
			return nil, err
		}
		seal = s.sealPinned
	}
	return a.readNoted(cmd, c, path, f, seal)
}

// sealPinned signs a manifest that agents would not refuse for its references.
func (s signer) sealPinned(m events.Manifest) ([]byte, error) {
	if err := referencesPinned(m, s.trust.PinnedReferences); err != nil {
		return nil, err
	}
	return s.seal(m)
}

// readNoted reads a package and tells what the administrator should know of it.
func (a *app) readNoted(cmd *cobra.Command, c *client, path string, f publishFlags, seal func(events.Manifest) ([]byte, error)) (*publish.Plan, error) {
	plan, err := a.readPackage(cmd, c, path, f, seal)
	if err != nil {
		return nil, err
	}
	for _, n := range plan.Notes {
		note(cmd.ErrOrStderr(), "note: %s", n)
	}
	return plan, a.checkAccounts(cmd, c, plan.Manifest)
}

// referencesPinned refuses programs that agents would refuse, where the trust bundle wants all references pinned.
func referencesPinned(m events.Manifest, wanted bool) error {
	for _, name := range programNames(m) {
		if loose := manifest.Unpinned(m.Programs[name]); wanted && len(loose) > 0 {
			return fmt.Errorf("agents would refuse it: the trust bundle forbids references without a sha256, and program %s has %s", name, strings.Join(loose, ", "))
		}
	}
	return nil
}

// checkAccounts refuses programs whose installation account must not run any; one that the fleet does not have yet is only
// told of. Credential service and agents refuse both by themselves, when a program is to run.
func (a *app) checkAccounts(cmd *cobra.Command, c *client, m events.Manifest) error {
	named := map[string][]string{} // account: programs
	for _, name := range programNames(m) {
		if account := m.Programs[name].InstallationAccount; account != "" {
			named[account] = append(named[account], name)
		}
	}
	if len(named) == 0 {
		return nil
	}
	all, err := ask(cmd.Context(), c, events.AccountList, events.Nothing{})
	if err != nil {
		return fmt.Errorf("find out what the installation accounts are: %w", err)
	}
	kinds := map[string]events.AccountKind{}
	for _, account := range all.Accounts {
		kinds[account.Account] = account.Kind
	}
	var refused []error
	for _, account := range slices.Sorted(maps.Keys(named)) {
		programs := strings.Join(named[account], ", ")
		switch kind, there := kinds[account]; {
		case kind == events.SoftwareInstallation:
		case !there:
			note(cmd.ErrOrStderr(), "WARNING: the fleet has no account %s, by which legacy clients are to run %s: make it with `%s account set %s --kind %s --user USER`",
				account, programs, a.self, account, events.SoftwareInstallation)
		default:
			refused = append(refused, fmt.Errorf("account %s is of kind %s, which must not run programs (%s): name one of kind %s as installation-account", account, kind, programs, events.SoftwareInstallation))
		}
	}
	return errors.Join(refused...)
}

// checkPublish refuses flags that say what the package's own file says.
func checkPublish(path string, f publishFlags) error {
	if f.run != "" && f.run != string(events.RunUser) && f.run != string(events.RunAdministrative) {
		return fmt.Errorf("--run %q: it must be user or administrative", f.run)
	}
	if err := f.source.check(); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() && filepath.Base(path) != publish.SpecName && f.source.any() {
		return fmt.Errorf("--source-user, --source-method and --source-dir are for packages with a %s: one file is published as it is", publish.SpecName)
	}
	if err != nil || !info.IsDir() && filepath.Base(path) != publish.SpecName {
		return nil // what is wrong with the path is told by who reads it
	}
	for _, flag := range []struct{ name, value string }{{"run", f.run}, {"name", f.name}, {"version", f.version}} {
		if flag.value != "" {
			return fmt.Errorf("--%s is for a single file: of a directory %s says it", flag.name, publish.SpecName)
		}
	}
	return nil
}

// readPackage reads the package; where it needs to know whose rights are meant, it asks on a terminal.
func (a *app) readPackage(cmd *cobra.Command, c *client, path string, f publishFlags, seal func(events.Manifest) ([]byte, error)) (*publish.Plan, error) {
	outside, err := a.readsOutside(cmd, f.source)
	if err != nil {
		return nil, err
	}
	defer outside.close()
	mounted, err := f.source.mounted()
	if err != nil {
		return nil, err
	}
	o := publish.Options{Run: events.RunMode(f.run), Name: f.name, Version: f.version, Now: a.now, Seal: seal, Outside: outside, Mounted: mounted,
		Published: f.published(c), Expression: func(e string) error { return checkExpression("expression", e) }}
	plan, err := publish.Read(cmd.Context(), path, o)
	if !errors.Is(err, publish.ErrNoRun) {
		return plan, err
	}
	if !a.interactive(cmd) {
		return nil, fmt.Errorf("%w: --run user or --run administrative", err)
	}
	fmt.Fprint(cmd.ErrOrStderr(), "With whose rights does it run? user (whoever is logged on) or administrative: ")
	typed, err := readLine(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	o.Run = events.RunMode(typed)
	return publish.Read(cmd.Context(), path, o)
}

// published finds a package that another one depends on: among those about to be published, else by asking.
func (f publishFlags) published(c *client) func(ctx context.Context, name, version string) (events.Manifest, bool, error) {
	return func(ctx context.Context, name, version string) (events.Manifest, bool, error) {
		if m, ok := f.beside[packageText(name, version)]; ok {
			return m, true, nil
		}
		return c.publishedPackage(ctx, name, version)
	}
}

// publishedPackage asks for a package that another one depends on.
func (c *client) publishedPackage(ctx context.Context, name, version string) (events.Manifest, bool, error) {
	found, err := ask(ctx, c, events.ContentShow, events.Named{Name: name, Version: version})
	if errors.Is(err, bus.ErrNotFound) {
		return events.Manifest{}, false, nil
	}
	return found.Manifest, err == nil, err
}

// web is the client for the fleet's HTTP servers, whose certificates come from the context's authority; nil
// where it names none.
func (c connection) web() (*http.Client, error) {
	trusted, err := trustCertificate(c.CA)
	if err != nil || trusted == nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trusted
	return &http.Client{Transport: transport}, nil
}

// contentServer is the content service as publishing sees it.
type contentServer struct{ c *client }

func (s contentServer) Upload(ctx context.Context, r events.UploadRequest) (events.UploadAnswer, error) {
	return ask(ctx, s.c, events.ContentUpload, r)
}

func (s contentServer) Commit(ctx context.Context, r events.CommitRequest) (events.PackageInfo, error) {
	return ask(ctx, s.c, events.ContentCommit, r)
}
