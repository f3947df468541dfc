package main

import (
	"context"
	"errors"
	"fmt"

	"chandler/events"
	"chandler/events/bus"
	"chandler/services/content/publish"
	"chandler/services/declared"
)

// packages to be published. One that needs another of them comes after it: reading it fails until that one was read.
func (p *planner) packages(ctx context.Context, set declared.Set) error {
	left := set.Packages
	beside := map[string]events.Manifest{}
	for len(left) > 0 {
		var again []declared.Package
		var problems []error
		for _, d := range left {
			m, err := p.planPackage(ctx, d, beside)
			if err != nil {
				again, problems = append(again, d), append(problems, d.At("package", d.Name()+": "+err.Error()))
				continue
			}
			beside[d.Name()] = m
		}
		if len(again) == len(left) {
			return errors.Join(problems...)
		}
		left = again
	}
	return nil
}

func (p *planner) planPackage(ctx context.Context, d declared.Package, beside map[string]events.Manifest) (events.Manifest, error) {
	there, err := p.pkg(ctx, d.Package, d.Version)
	missing := errors.Is(err, bus.ErrNotFound)
	switch {
	case err != nil && !missing:
		return events.Manifest{}, err
	case missing && d.Path == "":
		return events.Manifest{}, errors.New("it is not published, and no path leads to it")
	case !missing && d.Manifest != "" && d.Manifest != there.digest:
		return events.Manifest{}, fmt.Errorf("what is published has manifest %.12s, not %.12s", there.digest, d.Manifest)
	case d.Path == "":
		return there.manifest, nil
	}
	f := publishFlags{source: p.flags.source, asked: p.flags.asked, beside: beside}
	if d.Run != "" {
		f.run, f.name, f.version = string(d.Run), d.Package, d.Version
	}
	if err := checkPublish(d.Path, f); err != nil {
		return events.Manifest{}, err
	}
	read, err := p.app.readPackage(p.cmd, p.c, d.Path, f, nil)
	if err != nil {
		return events.Manifest{}, err
	}
	m := read.Manifest
	if m.Package != d.Package || m.Version != d.Version {
		return m, fmt.Errorf("what lies at %s is %s@%s", d.Path, m.Package, m.Version)
	}
	if !missing {
		fields, err := differing(there.manifest, m, "published")
		if err == nil && len(fields) > 0 {
			err = fmt.Errorf("it is published with another content (%s), and a published version never changes: give it another version", fieldNames(fields))
		}
		return m, err
	}
	p.lookups.packages[d.Name()] = published{m, read.Digest}
	p.changes = append(p.changes, change{Verb: verbPublish, Kind: "package", Name: d.Name(), Says: fmt.Sprintf("%s, %s", plural(len(m.Files), "file", "files"), byteSize(m.Size())),
		do: func(ctx context.Context) (string, error) { return p.publish(ctx, d, f) }})
	return m, nil
}

func fieldNames(fields []fieldChange) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Field
	}
	return joined(names)
}

// publish signs and uploads a package.
func (p *planner) publish(ctx context.Context, d declared.Package, f publishFlags) (string, error) {
	if err := p.c.may(events.ContentCommit.CallDeclaration); err != nil {
		return "", err
	}
	s, err := p.signer(ctx)
	if err != nil {
		return "", err
	}
	if err := s.mayPublish(); err != nil {
		return "", err
	}
	plan, err := p.app.readNoted(p.cmd, p.c, d.Path, f, s.sealPinned)
	if err != nil {
		return "", err
	}
	web, err := p.c.web()
	if err != nil {
		return "", err
	}
	progress := newProgress(p.cmd.ErrOrStderr(), p.app.isTerminal(p.cmd.ErrOrStderr()), "upload "+d.Name(), plan.Size())
	done, err := publish.Upload(ctx, plan, contentServer{p.c}, web, progress.set)
	progress.finish(err == nil)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("package %s is published: %s", packageName(done), byteSize(done.Manifest.Size())), nil
}
