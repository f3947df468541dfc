package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
)

func newPackage(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "package", Short: "Software and the programs that install it"}
	cmd.AddCommand(packagePublish(a), packageList(a), packageShow(a), packageAccess(a), packageRemove(a))
	return cmd
}

func packageName(p events.PackageInfo) string { return p.Manifest.Package + "@" + p.Manifest.Version }

func programNames(m events.Manifest) []string { return slices.Sorted(maps.Keys(m.Programs)) }

func (a *app) packageColumns() listing[events.PackageInfo] {
	type v = events.PackageInfo
	return listing[v]{
		name: packageName,
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.Manifest.Package }},
			{"VERSION", false, func(r v) any { return r.Manifest.Version }},
			{"PROGRAMS", false, func(r v) any { return programNames(r.Manifest) }},
			{"FILES", true, func(r v) any { return countCell(len(r.Manifest.Files)) }},
			{"SIZE", false, func(r v) any { return sizeCell(r.Manifest.Size()) }},
			{"SOURCE", true, func(r v) any { return resourceText(r.Manifest.Source) }},
			{"DEPLOYMENTS", true, func(r v) any { return r.Deployments }},
			{"PUBLISHED", false, func(r v) any { return a.agoCell(r.Manifest.Published) }},
			{"BY", true, func(r v) any { return r.By }},
			{"DIGEST", true, func(r v) any { return r.Digest }},
		},
	}
}

func packageList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List packages", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.ContentList, events.Nothing{})
			if err != nil {
				return err
			}
			return a.packageColumns().show(cmd, a.output, all.Packages)
		}),
	}
}

func packageShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME[@VERSION]", Short: "Show one package; without a version the newest published", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeArguments(completePackages),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			name, version, _ := strings.Cut(args[0], "@")
			found, err := ask(cmd.Context(), c, events.ContentShow, events.Named{Name: name, Version: version})
			if err != nil {
				return err
			}
			return a.writePackage(cmd, c, found)
		}),
	}
}

// packageView is what package show tells.
type packageView struct {
	events.PackageInfo
	Signers []string `json:"signers"` // publishers who signed it and are trusted now, as this machine can vouch for
	Refused string   `json:"refused,omitempty"`
}

// writePackage shows what was signed, and by whom.
func (a *app) writePackage(cmd *cobra.Command, c *client, found events.PackageInfo) error {
	m, err := manifest.Open(found.Envelope)
	if err != nil {
		return fmt.Errorf("read the manifest of %s: %w", packageName(found), err)
	}
	found.Manifest, found.Digest = m, events.DigestOf(found.Envelope)
	view := packageView{PackageInfo: found, Signers: []string{}}
	if bundle, err := a.followTrust(cmd.Context(), c); err != nil {
		view.Refused = "not known here: " + err.Error()
	} else if names, err := manifest.Signed(found.Envelope, bundle); err != nil {
		view.Refused = "agents refuse it: " + err.Error()
	} else {
		view.Signers = names
	}
	fields := slices.Concat(titleFields(m), []field{{"Digest", found.Digest},
		{"Signed by", cmp.Or(view.Refused, strings.Join(view.Signers, ", "))},
		{"Published", a.longTime(m.Published)}, {"By", found.By}, {"Deployments", found.Deployments}}, contentFields(m))
	return writeDetail(cmd.OutOrStdout(), a.output, view, packageName(found), fields)
}

func titleFields(m events.Manifest) []field {
	return []field{{"Package", m.Package}, {"Version", m.Version}, {"Publisher", m.Publisher}, {"Comment", m.Comment},
		{"Category", m.Category}, {"Source", resourceText(m.Source)}, {"Supersedes", supersededTexts(m.Supersedes)}}
}

// supersededTexts say what a package takes the place of, and how.
func supersededTexts(all []events.Supersede) (texts []string) {
	for _, s := range all {
		text := strings.TrimSpace(s.Package + " " + s.Version)
		if s.Uninstall != "" {
			text += " (removed first by " + s.Uninstall + ")"
		}
		texts = append(texts, text)
	}
	return texts
}

// resourceText is an address as people are shown it; "" of none.
func resourceText(address string) string {
	if address == "" {
		return ""
	}
	return resource.Shown(address)
}

// contentFields are what a package runs and what it brings.
func contentFields(m events.Manifest) (fields []field) {
	for _, program := range programNames(m) {
		p := m.Programs[program]
		context := strings.Join(append([]string{"run " + string(p.Run)}, conditions(p)...), "; ")
		fields = append(fields, field{"Program " + program, context + ": " + commandLine(p.Command)})
		for _, r := range p.References {
			fields = append(fields, field{"Reference of " + program, referenceText(r)})
		}
	}
	for _, f := range m.Files {
		text := byteSize(f.Size) + "  " + f.SHA256
		if manifest.Outside(m, f) {
			text += "  at " + resource.Shown(manifest.Address(m, f))
		}
		fields = append(fields, field{"File " + f.Path, text})
	}
	return fields
}

// referenceText says what a program refers to, and how far that is known.
func referenceText(r events.Reference) string {
	text := resource.Shown(r.URL) + ", unverified"
	if r.SHA256 != "" {
		text = resource.Shown(r.URL) + ", pinned to " + r.SHA256
	}
	if r.Optional {
		text += ", optional"
	}
	return text
}

// conditions say in words when, before whom and by which account a program runs, and what follows; nothing where all is
// as it is by default.
func conditions(p events.Program) (words []string) {
	add := func(is bool, text string) {
		if is {
			words = append(words, text)
		}
	}
	add(p.EveryUser, "once for every user who logs on")
	add(!p.EveryUser && p.Run == events.RunAdministrative && p.Logon == events.LogonUser, "only when a user is logged on")
	add(p.Logon == events.LogonNone, "only when nobody is logged on")
	add(p.Interactive, "shown to the user")
	add(p.InstallationAccount != "", "on legacy clients by installation account "+p.InstallationAccount)
	add(p.After == events.AfterRestart, "the machine is restarted afterwards")
	add(p.After == events.AfterProgramRestarts, "restarts the machine itself")
	add(p.After == events.AfterLogoff, "users are logged off afterwards")
	add(p.MSIScope == events.MSIScopeMachine, "for the whole machine")
	add(p.MSIScope == events.MSIScopeAsAuthored, "for whom its .msi was made")
	add(p.Product != "", "product "+p.Product)
	add(p.Undoes != "", "undoes "+p.Undoes)
	add(p.Repairs != "", "repairs "+p.Repairs)
	add(p.Window != "", "window "+p.Window)
	add(len(p.RunFirst) > 0 && !p.AlwaysRunFirst, "after "+strings.Join(p.RunFirst, ", ")+" where that did not succeed yet")
	add(p.AlwaysRunFirst, "after "+strings.Join(p.RunFirst, ", ")+" each time")
	add(p.DiskSpace > 0, p.DiskSpace.String()+" must be free")
	add(len(p.Platforms) > 0, "on "+strings.Join(platformTexts(p.Platforms), " or "))
	return words
}

// platformTexts say which machines are meant.
func platformTexts(platforms []events.Platform) (texts []string) {
	for _, p := range platforms {
		words := []string{cmp.Or(p.Name, p.OS)}
		switch {
		case p.MinVersion != "" && p.MaxVersion != "":
			words = append(words, p.MinVersion+" to "+p.MaxVersion)
		case p.MinVersion != "":
			words = append(words, p.MinVersion+" or newer")
		case p.MaxVersion != "":
			words = append(words, "up to "+p.MaxVersion)
		}
		texts = append(texts, strings.Join(slices.DeleteFunc(append(words, p.Arch), func(w string) bool { return w == "" }), " "))
	}
	return texts
}

func packageRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME@VERSION", Short: "Remove a package that no deployment and no other package needs", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completePackages),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			name, version, ok := strings.Cut(args[0], "@")
			if !ok {
				return errNameVersion
			}
			removed, err := ask(cmd.Context(), c, events.ContentRemove, events.Named{Name: name, Version: version})
			if err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "package %s is removed", packageName(removed))
			return nil
		}),
	}
}
