import ArgumentParser
import Agent
import Testbed
print("apus")
