"""Registers, stack and code size of all variants"""
import sys, subprocess, re, os, tempfile, itertools
import torch, triton
sys.path.insert(0, '/tmp/wt/triton')
