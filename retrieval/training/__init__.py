"""Training a small latent diffusion model in the Stable Diffusion layout, as the bundled `mini` was trained.

    python -m diffsim.retrieval.training photos drawings --out mini

recipe.py        every number that decides the weights
pictures.py      the folders as one array, and which pictures show one subject in several styles
treatments.py    random image filters, applicable to any picture
batches.py       the input of one step, a function of seed and step alone
losses.py        denoising, and the Aligned Attention Score trained to find the same subject and the same style
trainer.py       the network, its moving average and the optimizer: one step, and checkpoints
model_folder.py  a trained network as a folder
run.py           from folders of pictures to a model folder, with the log
curve.py         the log as a picture
"""
