"""Agent, reward fitting and labelling side by side, as the three processes of Christiano et al. 2017 (figure 1).

The agent's process (`preference.learner`) puts clips and questions into the store and adopts what the others publish;
`fitting` and `labelling` are fresh interpreters beside it, which `supervise` starts, watches and ends.
"""
