// Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	every, err := time.ParseDuration(os.Getenv("PROBE_EVERY"))
	for repeated := err == nil; ; time.Sleep(every) {
		failed := probe()
		if failed != nil {
			fmt.Println("refused:", strings.ReplaceAll(failed.Error(), "\n", " "))
		}
		if !repeated {
			if failed != nil {
				os.Exit(1)
			}
			return
		}
	}
}

func probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	configuration, err := shared(ctx)
	if err != nil {
		return err
	}
	identity, err := configuration.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return err
	}
	bucket, key := os.Getenv("PROBE_BUCKET"), os.Getenv("PROBE_KEY")
	_, err = configuration.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: strings.NewReader("written by " + *identity.Arn),
	})
	if err != nil {
		return err
	}
	object, err := configuration.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return err
	}
	defer object.Body.Close()
	text, err := io.ReadAll(object.Body)
	if err != nil {
		return err
	}
	fmt.Printf("caller: %s\nobject: %s\n", *identity.Arn, text)
	return nil
}

type clients struct {
	sts *sts.Client
	s3  *s3.Client
}

var made *clients

// The same clients each time, as an application has them, so that they refresh their credentials.
func shared(ctx context.Context) (*clients, error) {
	if made == nil {
		configuration, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return nil, err
		}
		made = &clients{sts: sts.NewFromConfig(configuration), s3: s3.NewFromConfig(configuration)}
	}
	return made, nil
}
