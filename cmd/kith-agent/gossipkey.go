package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	gossipSecret    = "kith-gossip"
	gossipSecretKey = "key"
	gossipKeyLength = 32
)

// gossipKey returns the key that the cluster's gossip is encrypted with. The first agent that finds no Secret makes
// one; those that lose that race take the winner's.
func gossipKey(ctx context.Context, client kubernetes.Interface, namespace string) ([]byte, error) {
	secrets := client.CoreV1().Secrets(namespace)
	secret, err := secrets.Get(ctx, gossipSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		fresh := make([]byte, gossipKeyLength)
		rand.Read(fresh)
		made := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: gossipSecret, Namespace: namespace},
			Data:       map[string][]byte{gossipSecretKey: []byte(base64.StdEncoding.EncodeToString(fresh))},
		}
		if secret, err = secrets.Create(ctx, made, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			secret, err = secrets.Get(ctx, gossipSecret, metav1.GetOptions{})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("gossip key in secret %s/%s: %w", namespace, gossipSecret, err)
	}
	return parseGossipKey(secret)
}

func parseGossipKey(secret *corev1.Secret) ([]byte, error) {
	text := strings.TrimSpace(string(secret.Data[gossipSecretKey]))
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != gossipKeyLength {
		return nil, fmt.Errorf("secret %s/%s: value of %q must be the base64 of %d random bytes (head -c %d /dev/urandom | base64)",
			secret.Namespace, secret.Name, gossipSecretKey, gossipKeyLength, gossipKeyLength)
	}
	return key, nil
}
