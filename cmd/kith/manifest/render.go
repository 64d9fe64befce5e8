package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What has to be rendered is refused: read as it lies there, a patch would be an object, and objects would bear other
// names, namespaces and labels than in a cluster.

func isKustomization(name string) bool {
	return slices.Contains([]string{"kustomization.yaml", "kustomization.yml", "Kustomization"}, filepath.Base(name))
}

// isChart says whether a folder is a Helm chart.
func isChart(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "Chart.yaml")); err != nil {
		return false
	}
	info, err := os.Stat(filepath.Join(dir, "templates"))
	return err == nil && info.IsDir()
}

func kustomizationMistake(file string) *Mistake {
	return &Mistake{File: file, Line: 1, Problem: fmt.Sprintf("is a kustomization, which must be rendered first: kubectl kustomize %s | kith policy … -f -", filepath.Dir(file))}
}

func chartMistake(dir string) *Mistake {
	return &Mistake{File: filepath.Join(dir, "Chart.yaml"), Line: 1, Problem: fmt.Sprintf("is a Helm chart, which must be rendered first: helm template %s | kith policy … -f -", dir)}
}

const templateProblem = "is a template: render it first, with helm template CHART | kith policy … -f -"

// helm is what templates of Helm have, and those of other programs have not.
var helm = regexp.MustCompile(`\{\{[^}]*(\.Values|\.Release|\.Chart|\.Capabilities|\binclude\s+"|\btemplate\s+"|\bdefine\s+")`)

// isTemplate says whether an object has a part that Helm would fill in.
func isTemplate(node *yaml.Node) bool {
	switch node.Kind {
	case yaml.ScalarNode:
		return strings.Contains(node.Value, "{{") && helm.MatchString(node.Value)
	case yaml.AliasNode:
		return false
	case yaml.MappingNode:
		// YAML takes {{ … }} without quotes for a mapping that is a key.
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Kind == yaml.MappingNode && node.Content[i].Style == yaml.FlowStyle {
				return true
			}
		}
	}
	return slices.ContainsFunc(node.Content, isTemplate)
}
